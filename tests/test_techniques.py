"""examples/TECHNIQUES.md equals the page that its script makes from the docstrings."""

import functools
import re

import keras_transfer
from tests import techniques
from tests.public import components


def test_the_file_is_up_to_date():
    text = techniques.PATH.read_text() if techniques.PATH.is_file() else ""
    assert text == techniques.page(), f"Run `{techniques.COMMAND}` and commit the file."


def test_every_public_name_is_in_the_file():
    text = techniques.PATH.read_text()
    rows = "\n".join(re.findall(r"^\| (`kt\..*?) \|", text, flags=re.M))
    listed = {
        id(functools.reduce(getattr, name.split("."), keras_transfer))
        for name in re.findall(r"`kt\.([\w.]+)`", rows)
    }
    assert [name for name, each in components().items() if id(each) not in listed] == []


def test_every_arxiv_number_of_a_docstring_is_a_link():
    text = techniques.PATH.read_text()
    numbers = {
        number
        for component in components().values()
        for number in techniques.ARXIV.findall(techniques.reference_of(component))
    }
    assert len(numbers) > 30
    linked = set(re.findall(r"\]\(https://arxiv\.org/abs/([\d.]+)\)", text))
    assert numbers - linked == set()


def test_references_are_shortened():
    link = "[arXiv:1801.06146](https://arxiv.org/abs/1801.06146)"
    for long, expected in (
        ("Howard and Ruder 2018, A title, arXiv:1801.06146, section 3.", "{} 2018, {}"),
        ('J. Howard and S. Ruder, 2018, "A title", arXiv 1801.06146.', "{} 2018, {}"),
        ("As in `A`: Howard and Ruder, 2018, arXiv: 1801.06146.", "{} 2018, {}"),
        ("Howard and Ruder 2018, Titles, or words, ICML.", "{} 2018, Titles, or words"),
    ):
        wanted = expected.format("Howard and Ruder", link)
        assert techniques.short(long) == wanted
    assert techniques.short("PEFT, `PeftModel.unload`.") == "PEFT, `PeftModel.unload`."
    two = 'E. Ben Zaken et al., 2022, "B", ICML; T.-H. Oh, B. Yu and C. Xu, 2021, "D".'
    assert techniques.short(two) == "Ben Zaken et al. 2022, B; Oh et al. 2021, D"
