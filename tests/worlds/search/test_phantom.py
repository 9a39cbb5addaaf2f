import json
import os
import shutil
import stat

import pytest

from reskill_jax.worlds.search import PhantomWiki, SearchError, generate, phantom

PEOPLE = {
    "Aida Wang": ("sister", "Vera Beltran", "friend", "Otis Smock", "butcher"),
    "Vera Beltran": ("sister", "Aida Wang", "friend", "Gene Kee", "pilot"),
    "Otis Smock": ("brother", "Gene Kee", "friend", "Aida Wang", "actuary"),
    "Gene Kee": ("brother", "Otis Smock", "friend", "Vera Beltran", "midwife"),
}


def article(name):
    relation, relative, _, friend, job = PEOPLE[name]
    text = (
        f"# {name}\n\n## Family\nThe {relation} of {name} is {relative}.\n\n"
        f"## Friends\nThe friend of {name} is {friend}.\n\n"
        f"## Attributes\nThe occupation of {name} is {job}.\n"
    )
    facts = [f'{relation}("{name}", "{relative}").', f'job("{name}", "{job}").']
    return {"title": name, "article": text, "facts": facts}


def question(text, answers, difficulty, *, counts=False):
    """As `pw-generate` writes one."""
    return {
        "id": "0d3e11dd-0564-44f8-8e53-26970a80b46f",
        "question": text,
        "solution_traces": json.dumps([{"Y_2": answer} for answer in answers]),
        "answer": answers,
        "prolog": {"query": ['job(Y_3, "butcher")'], "answer": "Y_2"},
        "template": ["Who is", "the", "<relation>_3", "?"],
        "type": 0,
        "difficulty": difficulty,
        "is_aggregation_question": counts,
    }


QUESTIONS = [
    *(question(f"Who is the friend of {name}?", [PEOPLE[name][3]], 1) for name in PEOPLE),
    *(
        question(
            f"What is the occupation of the friend of {name}?", [PEOPLE[PEOPLE[name][3]][4]], 2
        )
        for name in PEOPLE
    ),
    question("Who is the sister of the friend of the friend of Gene Kee?", ["Aida Wang"], 4),
    question("Who is the person whose relative is a sister?", ["Vera Beltran", "Aida Wang"], 3),
    question("How many friends does the sister of Aida Wang have?", ["1"], 2, counts=True),
    question("What is the occupation of the person whose occupation is pilot?", ["pilot"], 2),
    question("Who is nobody?", [], 1),
    question("Who is the friend of Gene Kee?", ["Vera Beltran"], 1),
]


def write(folder, articles, questions):
    folder.mkdir(exist_ok=True)
    for name, items in (("articles.json", articles), ("questions.json", questions)):
        (folder / name).write_text(json.dumps(items, indent=4))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "wiki", [article(name) for name in PEOPLE], QUESTIONS)


def asked(world):
    return {task.text: (split, task) for split in world.splits for task in world.tasks(split)}


def test_reading(folder):
    world = PhantomWiki(folder)
    assert world.name == "PhantomWiki, BM25"
    found = asked(world)
    assert len(found) == 10  # four, four, one of four hops, one count
    split, task = found["Who is the sister of the friend of the friend of Gene Kee?"]
    assert (split, task.kind, task.data.answers) == ("unseen", "4 hops", ("Aida Wang",))
    assert [task.text for task in world.tasks("unseen")] == [task.text]
    assert found["Who is the friend of Gene Kee?"][1].kind == "1 hops"


def test_splits_follow_from_texts_alone(folder):
    before = asked(PhantomWiki(folder))
    assert {split for split, _ in before.values()} == {"train", "seen", "unseen"}
    # sha256 of the text, read as a number, is a multiple of five
    assert {text for text, (split, _) in before.items() if split == "seen"} == {
        "What is the occupation of the friend of Aida Wang?",
        "Who is the friend of Otis Smock?",
    }
    again = [{**item, "id": "another"} for item in reversed(QUESTIONS)]
    assert asked(PhantomWiki(write(folder, [article("Gene Kee")], again))) == before
    harder = asked(PhantomWiki(folder, unseen_from=2))
    assert {task.kind for split, task in harder.values() if split == "unseen"} == {
        "2 hops",
        "4 hops",
    }


def test_an_episode(folder):
    world = PhantomWiki(folder, topk=1)
    _, task = asked(world)["What is the occupation of the friend of Aida Wang?"]
    session = world.open(task)
    assert session.reset() == "Question: What is the occupation of the friend of Aida Wang?"
    told = session.step("<search>friend of Aida Wang</search>").observation
    assert told == (
        '\n<information>{"result": "Doc 1: \\"Aida Wang\\"\\n## Family\\nThe sister of Aida Wang '
        "is Vera Beltran.\\n\\n## Friends\\nThe friend of Aida Wang is Otis Smock.\\n\\n"
        '## Attributes\\nThe occupation of Aida Wang is butcher.\\n"}</information>\n'
    )
    assert "actuary" in session.step("<search>Otis Smock</search>").observation
    assert session.step("<answer>an actuary</answer>").success


def test_several_answers(folder):
    world = PhantomWiki(folder, several_answers=True)
    text = "Who is the person whose relative is a sister?"
    assert text not in asked(PhantomWiki(folder)) and text in asked(world)
    session = world.open(asked(world)[text][1])
    over = session.step("<answer>Aida Wang</answer>")
    assert over.reward == pytest.approx(2 / 3) and not over.success
    assert session.step("<answer>Aida Wang, Vera Beltran</answer>").success
    assert "separated by commas" in world.instruction
    one = world.open(asked(world)["Who is the friend of Gene Kee?"][1])
    assert one.step("<answer>Vera Beltran, Aida Wang</answer>").reward == 0.0  # one is asked for


def test_counts_can_be_left_out(folder):
    left = set(asked(PhantomWiki(folder))) - set(asked(PhantomWiki(folder, counts=False)))
    assert left == {"How many friends does the sister of Aida Wang have?"}


ONE = [question("Who?", ["x"], 1)]


@pytest.mark.parametrize(
    ("articles", "questions", "told"),
    [
        ({}, ONE, "articles.json: expected a list, found dict"),
        ([], ONE, "there are no documents to search"),
        ([1], ONE, "articles.json, entry 1: expected an object, found int"),
        ([{"title": "x"}], ONE, "entry 1: an article has a title and a text"),
        ([{"title": "", "article": "x"}], ONE, "entry 1: an article has a title and a text"),
        (None, [], "questions.json: there is no question of the kinds that are asked"),
        (None, [question("Who?", ["x", "y"], 1)], "there is no question of the kinds"),
        (None, [{**ONE[0], "question": None}], "entry 1: the question is a text"),
        (None, [{**ONE[0], "answer": "x"}], "entry 1: the answer is a list of texts"),
        (None, [*ONE, {**ONE[0], "answer": [3]}], "entry 2: the answer is a list of texts"),
        (None, [{**ONE[0], "answer": [""]}], "answers are texts that are not empty"),
        (None, [{**ONE[0], "difficulty": True}], "the difficulty is a number from 1 on"),
        (None, [{**ONE[0], "difficulty": "2"}], "the difficulty is a number from 1 on"),
    ],
    ids=range(13),
)
def test_a_wiki_that_cannot_be_used(tmp_path, articles, questions, told):
    if articles is None:
        articles = [article("Gene Kee")]
    with pytest.raises(SearchError, match=told):
        PhantomWiki(write(tmp_path / "wiki", articles, questions))


def test_files_that_are_no_wiki(folder, tmp_path, monkeypatch):
    (folder / "questions.json").write_bytes(b"\xff[")
    with pytest.raises(SearchError, match="questions.json: not JSON"):
        PhantomWiki(folder)
    monkeypatch.setattr(phantom, "MOST_BYTES", 10)
    with pytest.raises(SearchError, match="articles.json: more than 10 bytes"):
        PhantomWiki(folder)
    with pytest.raises(SearchError, match="cannot be read .No such file or directory.; `generate`"):
        PhantomWiki(tmp_path / "nothing")


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder that programs are looked for in; SWI-Prolog seems to be there."""
    made = tmp_path / "bin"
    made.mkdir()
    program(made, "swipl", "exit 0")
    monkeypatch.setenv("PATH", str(made))
    monkeypatch.setattr(phantom.sys, "executable", str(tmp_path / "elsewhere" / "python"))
    return made


def test_generate_says_what_is_missing(programs, tmp_path):
    with pytest.raises(SearchError, match=r"pw-generate is missing: pip install .*phantomwiki"):
        generate(tmp_path / "new", seed=1)
    with pytest.raises(SearchError, match="/nowhere/pw-generate is missing"):
        generate(tmp_path / "new", seed=1, command="/nowhere/pw-generate")
    program(programs, "pw-generate", "exit 0")
    (programs / "swipl").unlink()
    with pytest.raises(SearchError, match="apt-get install swi-prolog-nox"):
        generate(tmp_path / "new", seed=1)
    assert not (tmp_path / "new").exists()


def test_generate_says_what_failed(programs, tmp_path):
    command = program(programs, "pw-generate", "echo one >&2; echo '  no   luck' >&2; exit 3")
    with pytest.raises(SearchError, match="pw-generate failed with status 3: no luck$"):
        generate(tmp_path / "new", seed=1)
    program(programs, "pw-generate", "exit 1")
    with pytest.raises(SearchError, match="status 1: it said nothing"):
        generate(tmp_path / "new", seed=1, command=command)
    program(programs, "pw-generate", "exec /bin/sleep 20")
    with pytest.raises(SearchError, match="took more than 0.2 seconds"):
        generate(tmp_path / "new", seed=1, time_limit=0.2)
    program(programs, "pw-generate", "exit 0")
    with pytest.raises(SearchError, match="no wiki can be written to"):
        generate(tmp_path / "new", seed=1)
    assert os.listdir(tmp_path / "new") == []


def test_generate_keeps_a_whole_wiki_only(programs, tmp_path):
    # the last argument is the folder to write to
    text = 'for last; do :; done; echo "$@" >&2; echo "[]" > "$last/articles.json"'
    program(programs, "pw-generate", text)
    with pytest.raises(SearchError, match="no wiki can be written to"):
        generate(tmp_path / "new", seed=1)
    program(programs, "pw-generate", f'{text}; echo "$@" > "$last/questions.json"')
    made = generate(tmp_path / "new", seed=7, family_trees=2, questions_per_type=3)
    assert made == tmp_path / "new" and sorted(os.listdir(made)) == sorted(
        (phantom.ARTICLES, phantom.QUESTIONS)
    )
    said = (made / "questions.json").read_text()
    assert said.startswith(
        "--seed 7 --num-family-trees 2 --max-family-tree-size 25 --question-depth 8 "
        "--num-questions-per-type 3 --article-format json --question-format json --quiet "
    )


GENERATOR = os.environ.get("RESKILL_PW_GENERATE", "pw-generate")


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which(GENERATOR) and shutil.which("swipl")),
    reason="needs pw-generate (RESKILL_PW_GENERATE names another than the one on PATH) and swipl",
)
def test_the_real_generator(tmp_path):
    options = {"seed": 1, "family_trees": 1, "depth": 6, "command": GENERATOR}
    one = PhantomWiki(generate(tmp_path / "one", **options), unseen_from=3)
    two = PhantomWiki(generate(tmp_path / "two", **options), unseen_from=3, several_answers=True)
    assert len(asked(one)) >= 40 and asked(one).items() < asked(two).items()
    assert set(one.splits) == {split for split, _ in asked(one).values()}
    for split, task in asked(two).values():
        hops = int(task.kind.removesuffix(" hops"))
        assert (split == "unseen") == (hops >= 3)
        over = two.open(task).step(f"<answer>{', '.join(task.data.answers)}</answer>")
        assert over.success and over.done
    task = next(task for task in one.tasks("train") if task.kind == "1 hops")
    assert "Doc 3" in one.open(task).step(f"<search>{task.text}</search>").observation
    other = PhantomWiki(generate(tmp_path / "other", **{**options, "seed": 2}))
    assert not set(asked(one)) & set(asked(other))
