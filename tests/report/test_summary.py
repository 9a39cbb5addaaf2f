"""The summary at the end of a run."""

import shutil

from reskill_jax.report import read_run, summary_lines


def test_summary_of_a_run(fake_run):
    run = read_run(fake_run)
    lines = summary_lines(run)
    seconds = sum(m["seconds"] for m in run.metrics) / 60
    assert lines[0] == f"household-demo: 60 steps, {seconds:.1f} s per step"
    first, last = run.evaluations("unseen")[0], run.evaluations("unseen")[-1]
    (unseen,) = [line for line in lines if line.startswith("unseen tasks")]
    assert unseen.split()[2] == f"{100 * first['success']:.0f}%"
    assert f"{100 * last['success']:.0f}% ({100 * last['interval'][0]:.0f}–" in unseen
    assert unseen.endswith("up, intervals apart")
    assert lines[-2] == "skills        3 accepted, 2 rejected, 1 pruned or retired"
    assert lines[-1] == "in the bank   open-after-navigation, clean-before-placement"


def test_summary_of_an_empty_run(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    for path in folder.glob("*.jsonl"):
        path.unlink()
    assert summary_lines(read_run(folder)) == [
        "household-demo: 0 steps",
        "",
        "skills        0 accepted, 0 rejected, 0 pruned or retired",
        "in the bank   none",
    ]
