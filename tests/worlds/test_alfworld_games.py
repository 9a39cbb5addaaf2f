import gzip
import json
import time

import pytest

from reskill_jax.worlds.alfworld_games import (
    MAX_GAME_BYTES,
    GameRecord,
    GamesError,
    goal_text,
    problem_record,
    read_data_folder,
    read_games,
    read_games_file,
    read_problem,
    write_games_file,
)

# One cabinet, one shelf, one mug; the goal is to bring the mug to the shelf.
PROBLEM = """(define (problem tiny)
(:domain alfred)
(:objects agent1 - agent
 loc_bar_1 loc_bar_2 loc_bar_3 - location
 Cabinet_bar_1 Shelf_bar_1 - receptacle
 Mug_bar_1 - object
 CabinetType ShelfType - rtype
 MugType - otype)
(:init
 (= (total-cost) 0)
 (atLocation agent1 loc_bar_3)
 (receptacleAtLocation Cabinet_bar_1 loc_bar_1) (receptacleType Cabinet_bar_1 CabinetType)
 (receptacleAtLocation Shelf_bar_1 loc_bar_2) (receptacleType Shelf_bar_1 ShelfType)
 (openable Cabinet_bar_1)
 (objectType Mug_bar_1 MugType) (pickupable Mug_bar_1)
 (objectAtLocation Mug_bar_1 loc_bar_1) (inReceptacle Mug_bar_1 Cabinet_bar_1)
 (canContain CabinetType MugType) (canContain ShelfType MugType))
(:goal (and (exists (?r - receptacle) (exists (?o - object)
 (and (objectType ?o MugType) (receptacleType ?r ShelfType) (inReceptacle ?o ?r))))))
)
"""
GRAMMAR = 'grammar :: """ { "task": [ { "rhs": "Your task is to: put a mug in shelf." } ] } """'
KIND = "pick_and_place_simple"


def record(split="mine", game="tiny", task="put a mug in shelf"):
    return GameRecord(split, game, KIND, task, PROBLEM)


@pytest.mark.parametrize("name", ["games.jsonl", "games.jsonl.gz"])
def test_a_games_file_comes_back(tmp_path, name):
    records = [
        record(game="a"),
        record(game="b/trial_1"),
        record("other", "a", "put it on x"),
    ]
    write_games_file(tmp_path / name, records)
    assert read_games(tmp_path / name) == records
    assert read_games(tmp_path / name, split="other") == records[2:]
    with (
        gzip.open(tmp_path / "games.jsonl.gz", "rt")
        if name.endswith("gz")
        else open(tmp_path / name) as file
    ):
        assert json.loads(file.readline())["pddl_problem"] == PROBLEM


def test_the_same_games_give_the_same_bytes(tmp_path):
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_games_file(tmp_path / name, [record()])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    "line,message",
    [
        ("{not json", "line 3: not JSON"),
        ("[1, 2]", "line 3: expected a JSON object, found list"),
        (json.dumps({"split": "x"}), "line 3: no field 'game'"),
        (json.dumps(record()._asdict() | {"task": 7}), "line 3: field 'task' must be a text"),
        (json.dumps(record()._asdict() | {"task": " "}), "line 3: field 'task' must be a text"),
        (json.dumps(record()._asdict() | {"task_type": "fly"}), "line 3: unknown task type 'fly'"),
        (json.dumps(record(split="../up")._asdict()), "line 3: '../up' is not a plain name"),
        (json.dumps(record(split="a/b")._asdict()), "line 3: 'a/b' is not a plain name"),
        (json.dumps(record(game="a/../../b")._asdict()), "line 3: .* is not a plain name"),
        (json.dumps(record(game="/etc/passwd")._asdict()), "line 3: .* is not a plain name"),
        (json.dumps(record(game="first")._asdict()), "line 3: game 'first' is already in split"),
        ("[" * 100_000, "line 3: not JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    path = tmp_path / "games.jsonl"
    first = json.dumps(record(game="first")._asdict())
    path.write_text(first + "\n\n" + line + "\n")
    with pytest.raises(GamesError, match=message):
        read_games_file(path)


@pytest.mark.parametrize("name", ["a.pddl", "a.tw-pddl", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_the_ends_of_lines_change_nothing(tmp_path, name, end):
    """As editors on Windows write them; in the middle of a file the mark stays an error."""
    problem = PROBLEM.replace("\n", end)
    data = {"pddl_problem": "\ufeff" + problem, "grammar": GRAMMAR}
    lines = [json.dumps(record(game=game)._asdict() | data) for game in ("x", "y")]
    text = end.join([*lines, ""])
    if name == "a.pddl":
        text = problem
    elif name == "a.tw-pddl":
        text = json.dumps(data, indent=1).replace("\n", end)
    raw = text.encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    for found in read_games(tmp_path / name):
        assert found.pddl_problem == problem and found.task == "put a mug in shelf"
    if "jsonl" in name:
        raw = end.join([lines[0], "\ufeff" + lines[1]]).encode()
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
        with pytest.raises(GamesError, match="line 2: not JSON"):
            read_games(tmp_path / name)


def test_byte_order_marks_in_a_data_folder(tmp_path):
    folder = tmp_path / "train" / "kind" / "trial"
    folder.mkdir(parents=True)
    game = {"solvable": True, "pddl_problem": "\ufeff" + PROBLEM, "grammar": GRAMMAR}
    for name, data in (("traj_data.json", {"task_type": KIND}), ("game.tw-pddl", game)):
        (folder / name).write_text(json.dumps(data), encoding="utf-8-sig")
    (found,) = read_data_folder(tmp_path)
    assert found.pddl_problem == PROBLEM


def test_what_cannot_be_read_says_so(tmp_path):
    with pytest.raises(GamesError, match="no games file or folder at .*nowhere"):
        read_games(tmp_path / "nowhere.jsonl")
    with pytest.raises(GamesError, match="no games file at"):
        read_games_file(tmp_path / "nowhere.jsonl")
    (tmp_path / "games.csv").write_text("a,b")
    with pytest.raises(GamesError, match="unknown kind of games file"):
        read_games(tmp_path / "games.csv")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(GamesError, match="holds no games"):
        read_games(tmp_path / "empty.jsonl")
    (tmp_path / "plain.jsonl.gz").write_text("not gzip")
    with pytest.raises(GamesError, match="cannot be read"):
        read_games(tmp_path / "plain.jsonl.gz")
    (tmp_path / "long.jsonl").write_bytes(b" " * (MAX_GAME_BYTES + 1))
    with pytest.raises(GamesError, match="long.jsonl, line 1: more than 16777216 bytes"):
        read_games(tmp_path / "long.jsonl")
    (tmp_path / "number.jsonl").write_text("1" * 5000)
    with pytest.raises(GamesError, match="line 1: not JSON"):
        read_games(tmp_path / "number.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(GamesError, match="cannot be read"):
        read_games(tmp_path / "latin.jsonl")
    write_games_file(tmp_path / "whole.jsonl.gz", [record(game=str(i)) for i in range(9)])
    cut = (tmp_path / "whole.jsonl.gz").read_bytes()[:-20]
    (tmp_path / "cut.jsonl.gz").write_bytes(cut)
    with pytest.raises(GamesError, match="cannot be read"):
        read_games(tmp_path / "cut.jsonl.gz")
    with pytest.raises(GamesError, match="no split 'train' in .*there is mine"):
        read_games(tmp_path / "whole.jsonl.gz", split="train")


def add_game(root, folder, *, kind=KIND, solvable=True, grammar=GRAMMAR, **more):
    path = root / folder
    path.mkdir(parents=True)
    (path / "traj_data.json").write_text(json.dumps({"task_type": kind}))
    data = {"pddl_problem": PROBLEM, "grammar": grammar, "pddl_domain": "", **more}
    if solvable is not None:
        data["solvable"] = solvable
    (path / "game.tw-pddl").write_text(json.dumps(data))
    return path


@pytest.fixture
def data_root(tmp_path):
    root = tmp_path / "movable-home"  # the filter looks at names of games, not at where they lie
    base = root / "json_2.1.1"
    add_game(base, "valid_seen/b-Mug-None-Shelf-1/trial_T2")
    add_game(base, "valid_seen/a-Mug-None-Shelf-1/trial_T1")
    add_game(base, "valid_seen/c-Mug-None-Shelf-1/trial_T1", kind="pick_two_obj_and_place")
    add_game(base, "valid_seen/d-MugSliced-None-Shelf-1/trial_T1")
    add_game(base, "valid_seen/pick_and_place_with_movable_recep-Mug/trial_T1")
    add_game(base, "valid_seen/e-Mug-None-Shelf-1/trial_T1", kind="pick_and_place_with_movable")
    add_game(base, "valid_seen/f-Mug-None-Shelf-1/trial_T1", solvable=False)
    add_game(base, "valid_seen/g-Mug-None-Shelf-1/trial_T1", solvable=None)
    no_game = base / "valid_seen/h-Mug-None-Shelf-1/trial_T1"
    no_game.mkdir(parents=True)
    (no_game / "traj_data.json").write_text(json.dumps({"task_type": KIND}))
    add_game(base, "train/a-Mug-None-Shelf-2/trial_T3")
    (root / "logic").mkdir()
    return root


def test_the_data_folder_is_filtered_as_alfworld_does(data_root, monkeypatch):
    seen = read_data_folder(data_root, split="valid_seen")
    names = [f"{letter}-Mug-None-Shelf-1/trial_T{n}" for letter, n in zip("abc", (1, 2, 1))]
    assert [r.game for r in seen] == names
    assert seen[0] == GameRecord("valid_seen", names[0], KIND, "put a mug in shelf", PROBLEM)
    assert [(r.split, r.game[0]) for r in read_games(data_root)] == [
        ("train", "a"),
        ("valid_seen", "a"),
        ("valid_seen", "b"),
        ("valid_seen", "c"),
    ]
    two = read_data_folder(data_root, split="valid_seen", task_types=["pick_two_obj_and_place"])
    assert [r.game for r in two] == names[2:]
    assert read_data_folder(data_root / "json_2.1.1", split="valid_seen") == seen
    monkeypatch.setenv("ALFWORLD_DATA", str(data_root))
    assert read_data_folder(split="valid_seen") == seen


@pytest.mark.parametrize("split", ["..", "../json_2.1.1/train", "/etc", "", "a\\b"])
def test_a_split_may_not_leave_the_folder(data_root, split):
    with pytest.raises(GamesError, match="is not a plain name"):
        read_data_folder(data_root, split=split)


def test_errors_of_the_data_folder(data_root, tmp_path):
    with pytest.raises(GamesError, match="no split 'test' in .*; there is train, valid_seen"):
        read_data_folder(data_root, split="test")
    with pytest.raises(GamesError, match="no ALFWorld data folder at"):
        read_data_folder(tmp_path / "nowhere")
    with pytest.raises(GamesError, match="holds no solvable games"):
        read_data_folder(data_root, split="train", task_types=["look_at_obj_in_light"])
    with pytest.raises(GamesError, match="unknown task type 'fly'"):
        read_data_folder(data_root, task_types=["fly"])
    broken = add_game(data_root / "json_2.1.1", "train/z-Mug-None-Shelf-2/trial_T3", grammar="none")
    with pytest.raises(GamesError, match="z-Mug.*game.tw-pddl: the grammar holds no goal text"):
        read_data_folder(data_root, split="train")
    (broken / "game.tw-pddl").write_text("{")
    with pytest.raises(GamesError, match="game.tw-pddl: not JSON"):
        read_data_folder(data_root, split="train")
    (broken / "traj_data.json").write_text("[]")
    with pytest.raises(GamesError, match="traj_data.json: expected a JSON object"):
        read_data_folder(data_root, split="train")


def test_single_problem_files(tmp_path):
    plain = tmp_path / "my_room.pddl"
    plain.write_text(PROBLEM)
    expected = GameRecord("file", "my_room", KIND, "put a mug in shelf", PROBLEM)
    assert read_games(plain) == [expected]
    assert read_problem(plain, task="bring it").task == "bring it"
    published = tmp_path / "game.tw-pddl"
    grammar = GRAMMAR.replace("put a mug in shelf", "put some mug on shelf")
    published.write_text(json.dumps({"pddl_problem": PROBLEM, "grammar": grammar}))
    assert read_games(published)[0].task == "put some mug on shelf"
    published.write_text(json.dumps({"grammar": grammar}))
    with pytest.raises(GamesError, match="game.tw-pddl: no text pddl_problem"):
        read_problem(published)
    plain.write_text(PROBLEM[:-200])
    with pytest.raises(GamesError, match="my_room.pddl: .*never closed"):
        read_problem(plain)
    with pytest.raises(GamesError, match="no problem file at"):
        read_problem(tmp_path / "other.pddl")


def test_problem_record_needs_a_known_goal():
    assert problem_record(PROBLEM).task_type == KIND
    with pytest.raises(GamesError, match="level 3: "):
        problem_record(PROBLEM.replace("inReceptacle ?o", "eats ?o"), where="level 3")


def test_goal_text():
    assert goal_text(GRAMMAR) == "put a mug in shelf"
    # Only a full stop followed by the closing quote ends it.
    assert goal_text(GRAMMAR.replace("in shelf", "in. there")) == "put a mug in. there"
    for grammar in (
        None,
        "",
        GRAMMAR.replace('."', '"'),
        GRAMMAR.replace("put a mug in shelf", ""),
    ):
        with pytest.raises(GamesError, match="goal text"):
            goal_text(grammar)
    with pytest.raises(GamesError, match="never filled in"):
        goal_text(GRAMMAR.replace("put a mug in shelf", "UNKNOWN GOAL"))


def test_goal_text_takes_linear_time():
    hostile = '"Your task is to: ' * 200_000
    start = time.perf_counter()
    with pytest.raises(GamesError):
        goal_text(hostile)
    assert time.perf_counter() - start < 1.0  # a search from every marker would take minutes
