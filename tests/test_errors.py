from exo import errors
from exo.errors import ExoError, error_class


def tree(cls: type[ExoError] = ExoError) -> list[type[ExoError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in tree(sub))]


def test_a_code_means_one_class():
    classes = [cls for cls in tree() if cls.__module__ == errors.__name__]
    codes = [cls.code for cls in classes]
    assert len(codes) == len(set(codes))
    assert [error_class(code) for code in codes] == classes


def test_every_class_is_in_the_picture():
    picture = errors.__doc__ or ""
    for cls in tree():
        if cls.__module__ == errors.__name__:
            assert cls.__name__ in picture


def test_the_message_ends_with_what_to_do_next():
    error = errors.QueueFull("Full.", hint="Wait.", param="model")
    assert str(error) == "Full. Wait."
    assert error.to_json() == {
        "error": {
            "message": "Full. Wait.",
            "type": "rate_limit_error",
            "param": "model",
            "code": "queue_full",
        }
    }
