from shouting import shout


def test_text_becomes_loud() -> None:
    assert shout("good morning").startswith("GOOD MORNING!")


def test_no_text_is_silence() -> None:
    assert shout(" ") == "..."
