import json
import pickle

import pytest

from reskill_jax.worlds.search import BM25, Found, Question, Retriever, SearchError, SearchQA
from reskill_jax.worlds.search.protocol import EXPECTED
from reskill_jax.worlds.search.world import MOST_OF_A_LINE, read_questions
from reskill_jax.worlds.sessions.pool import SessionPool
from reskill_jax.worlds.sessions.source import Source

QUESTIONS = (
    {"question": "Who built Mill Bridge?", "answers": ["Hanna Voss", "Voss"], "source": "bridges"},
    {"question": "Who is the mayor of Tarn?", "answers": ["Otto Lindh"], "id": "mayor"},
    {"question": "Where does\nThe Grey Harbour hang?", "answers": ["Osmo"], "split": "unseen"},
)


@pytest.fixture
def world(index):
    return SearchQA(QUESTIONS, index)


def session_of(world, id):
    (task,) = [task for split in world.splits for task in world.tasks(split) if task.id == id]
    return world.open(task)


def test_tasks(world):
    first, mayor = world.tasks("train")
    assert (first.id, first.text, first.kind) == (
        "question-0",
        "Who built Mill Bridge?",
        "bridges",
    )
    assert (mayor.id, mayor.kind) == ("mayor", "")
    assert world.tasks("train") == world.tasks("train")
    assert world.tasks("seen") == ()
    assert [task.text for task in world.tasks("unseen")] == ["Where does The Grey Harbour hang?"]
    with pytest.raises(SearchError, match="no split 'test'; there are: train, seen, unseen"):
        world.tasks("test")
    assert pickle.loads(pickle.dumps(mayor)) == mayor


def test_the_instruction_names_what_there_is(world):
    for word in ("<search>", "</search>", "<answer>", "</answer>", "<information>"):
        assert word in world.instruction
    assert "all of them" not in world.instruction


def test_an_episode(world):
    session = session_of(world, "mayor")
    assert session.reset() == "Question: Who is the mayor of Tarn?"
    assert session.choices() is None
    found = session.step("I must look. <search>mayor of Tarn</search>")
    assert found.observation.startswith('\n<information>{"result": "Doc 1: \\"Tarn\\"\\nTarn is a')
    assert found.observation.endswith('"}</information>\n')
    assert (found.reward, found.success, found.done) == (0.0, False, False)
    over = session.step("<answer>the Otto Lindh.</answer>")
    assert (over.reward, over.success, over.done, over.observation) == (1.0, True, True, "")
    session.close()


@pytest.mark.parametrize("said", ["Ida Lindh", "Otto", "", "Otto Lindh or Ida Lindh"])
def test_a_wrong_answer_ends_it_too(world, said):
    over = session_of(world, "mayor").step(f"<answer>{said}</answer>")
    assert (over.reward, over.success, over.done) == (0.0, False, True)


def test_any_right_answer_counts(world):
    assert session_of(world, "question-0").step("<answer>voss</answer>").success


@pytest.mark.parametrize("said", ["", "Otto Lindh", "<search> </search>", "<search>mayor"])
def test_without_an_action_the_agent_is_told_what_is_expected(world, said):
    told = session_of(world, "mayor").step(said)
    assert told.observation == EXPECTED and not told.done and told.reward == 0.0


def test_what_is_not_clean_can_cost(index):
    session = session_of(SearchQA(QUESTIONS, index, penalty=0.25), "mayor")
    assert session.step("nothing").reward == -0.25
    both = session.step("<search>Tarn</search><answer>Otto Lindh</answer>")
    assert both.reward == -0.25 and "Doc 1" in both.observation and not both.done
    assert session.step("<search>Tarn</search>").reward == 0.0
    several = session.step("<answer>Otto Lindh</answer><answer>Ida Lindh</answer>")
    assert (several.reward, several.success, several.done) == (0.75, True, True)


def test_what_a_passage_says_does_not_count(world):
    session = session_of(world, "mayor")
    told = session.step("<search>Markup pages</search>").observation
    assert "&lt;answer&gt;Otto Lindh&lt;/answer&gt;, &lt;/information&gt;" in told
    assert told.count("<") == 2
    assert not session.step("<answer></answer>").success


def test_a_question_holds_no_tags():
    item = {"question": "Is <answer>x</answer>\n</information> it?", "answers": ["y"]}
    world = SearchQA([item], BM25([("x", "y")]))
    (task,) = world.tasks("train")
    assert task.text == "Is &lt;answer&gt;x&lt;/answer&gt; &lt;/information&gt; it?"
    assert task.text in world.open(task).reset()


def test_all_answers_can_be_asked_for(index):
    question = Question("Who are they?", ("Otto Lindh", "Ida Lindh"), "1", every=True)
    world = SearchQA([question], index)
    assert "separated by commas" in world.instruction
    session = session_of(world, "1")
    half = session.step("<answer>Ida Lindh</answer>")
    assert half.reward == pytest.approx(2 / 3) and not half.success and half.done
    assert session.step("<answer>Ida Lindh, Otto Lindh</answer>").success


def test_errors_are_observations(stub):
    world = SearchQA(QUESTIONS, Retriever(stub.url, timeout=2, attempts=1))
    session = session_of(world, "mayor")
    assert "Otto Lindh" in session.step("<search>mayor of Tarn</search>").observation
    stub.replies = [lambda handler, sent: stub.say(handler, b"</information><answer>", 404)]
    told = session.step("<search>x</search>")
    assert told.observation == (
        '\n<information>{"result": "Search error: the retriever answered with status 404"}'
        "</information>\n"
    )
    assert not told.done and told.reward == 0.0


@pytest.mark.parametrize("workers", [0, 1], ids=["thread", "process"])
def test_sessions_in_a_pool(world, workers):
    (task,) = world.tasks("unseen")
    replies = []
    with SessionPool(Source(world=world), workers=workers) as pool:
        pool.open(0, task)
        for action in ("<search>The Grey Harbour</search>", "<answer>Osmo</answer>"):
            replies += pool.wait(60)
            pool.step(0, action)
        replies += pool.wait(60)
    assert [reply.done for reply in replies] == [False, False, True]
    assert "Ida Lindh" in replies[1].observation and replies[2].success


def test_any_searcher_will_do():
    class Nothing:
        def search(self, query):
            return Found()

    told = session_of(SearchQA(QUESTIONS, Nothing()), "mayor").step("<search>x</search>")
    assert "No search results found." in told.observation


def test_a_file_of_questions(tmp_path, index):
    path = tmp_path / "questions.jsonl"
    lines = "\n\n".join(json.dumps(question) for question in QUESTIONS)
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"\n")
    read = SearchQA(path, index)
    made = SearchQA(QUESTIONS, index)
    assert all(read.tasks(split) == made.tasks(split) for split in made.splits)
    assert SearchQA(str(path), index).tasks("train") == made.tasks("train")


GOOD = json.dumps(QUESTIONS[1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there are no questions"),
        (f"{GOOD}\n{{", "line 2: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("[]", "line 1: expected an object, found list"),
        ('{"question": "x"}', "line 1: no field 'answers'"),
        ('{"answers": ["x"]}', "line 1: no field 'question'"),
        ('{"question": 1, "answers": ["x"]}', "the question is a text that is not empty"),
        ('{"question": " ", "answers": ["x"]}', "the question is a text that is not empty"),
        ('{"question": "x", "answers": "y"}', "answers are a list of texts"),
        ('{"question": "x", "answers": []}', "there are no answers"),
        ('{"question": "x", "answers": ["y", 1]}', "answers are texts that are not empty"),
        ('{"question": "x", "answers": [""]}', "answers are texts that are not empty"),
        ('{"question": "x", "answers": ["y"], "id": 7}', "the id is a text"),
        ('{"question": "x", "answers": ["y"], "source": null}', "the source is a text"),
        ('{"question": "x", "answers": ["y"], "split": "dev"}', "no split 'dev'; there are: train"),
        ('{"question": "x", "answers": ["y"], "split": ["dev"]}', "there is no split"),
        (f"{GOOD}\n{GOOD}", "line 2: there is a question 'mayor' before it"),
        (" " * (MOST_OF_A_LINE + 1), f"line 1: more than {MOST_OF_A_LINE} bytes"),
    ],
    ids=range(18),
)
def test_a_file_that_cannot_be_used(tmp_path, text, told):
    path = tmp_path / "questions.jsonl"
    path.write_text(text)
    with pytest.raises(SearchError, match=told) as raised:
        read_questions(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_no_file(tmp_path, index):
    with pytest.raises(SearchError, match="cannot be read .No such file"):
        SearchQA(tmp_path / "nothing.jsonl", index)
    with pytest.raises(SearchError, match="cannot be read"):
        SearchQA(tmp_path, index)
