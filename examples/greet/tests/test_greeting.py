from greeting import greet


def test_a_name_is_greeted() -> None:
    assert greet("Ada") == "Hello, Ada!"


def test_a_blank_name_greets_the_world() -> None:
    assert greet("  ") == "Hello, world!"
