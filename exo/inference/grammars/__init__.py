"""What an answer may be, token by token: grammars, and where an answer is in one."""
