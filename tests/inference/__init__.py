from exo.inference.runner.kept_index import keep_index

# Before anything imports transformers: the ranks of some tests are processes of their own.
keep_index()
