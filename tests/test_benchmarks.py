"""The benchmark scripts: that they measure, save, go on and print with tiny budgets."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import limelight
from limelight.cli.arguments import train_request
from limelight.nn.numpy_engine.network import NumpyNetwork

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script("stats")``, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(autouse=True)
def _reports_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what benchmarks switch off in their own process."""
    training = importlib.import_module("limelight.training.run")
    monkeypatch.setattr(training, "draw_report", training.draw_report)


@pytest.fixture
def stats(script: Script) -> ModuleType:
    return script("stats")


@pytest.fixture
def learning(script: Script) -> ModuleType:
    return script("learning")


@pytest.fixture
def throughput(script: Script) -> ModuleType:
    return script("throughput")


@pytest.fixture
def startup(script: Script) -> ModuleType:
    return script("startup")


# --------------------------------------------------------------------------- provenance and output


def test_saved_json_keeps_plain_lists_on_one_line(stats: ModuleType, tmp_path: Path) -> None:
    data = {"a": [1, 2.5, None], "rows": [{"x": [1]}, {"x": []}], "text": "[ x,  y ]", "words": ["b c", "d]"]}
    path = tmp_path / "new" / "results.json"
    stats.save_json(path, data)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == data
    assert '"a": [1, 2.5, null]' in text
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_machine_is_named(stats: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    info = stats.machine()
    assert info["processor"]
    assert info["cpu_count"] >= 1
    assert {"torch", "numpy", "gymnasium", "stable-baselines3"} <= set(info)
    named = {"processor": "Intel(R) Xeon(R) Processor @ 2.50GHz", "cpu_count": 2}
    monkeypatch.setattr(stats, "system_info", lambda: named)
    assert stats.machine_slug() == "intel-xeon-2-50ghz-2-cores"
    assert stats.results_path("startup", None).name == "startup-intel-xeon-2-50ghz-2-cores.json"


def test_commit_is_that_of_the_measured_sources(
    stats: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    source = tmp_path / "src" / "limelight" / "__init__.py"
    for file in (source, tmp_path / "benchmarks" / "results" / "old.json"):
        file.parent.mkdir(parents=True)
        file.write_text("1")
    monkeypatch.setattr(stats, "ROOT", tmp_path)
    assert stats.git_commit() == "unknown"  # what is imported is not what lies here
    monkeypatch.setattr(stats.limelight, "__file__", str(source))
    assert stats.git_commit() == "unknown"  # no repository
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "benchmarks" / "results" / "new.json").write_text("2")
    assert stats.git_commit() == head
    source.write_text("2")
    assert stats.git_commit() == f"{head}-dirty"
    assert stats.short_commit(f"{head}-dirty") == f"{head[:12]}-dirty"
    assert stats.short_commit("unknown") == "unknown"


def test_markdown_table_is_aligned(stats: ModuleType) -> None:
    assert stats.markdown_table(["job", "n"], [["a2c", "10"]]).splitlines() == [
        "| job | n  |",
        "| --- | -- |",
        "| a2c | 10 |",
    ]


@pytest.mark.parametrize("name", ["throughput", "asynchrony", "atari", "learning", "startup"])
def test_help(script: Script, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        script(name).main(["--help"])
    assert "--output" in capsys.readouterr().out


# --------------------------------------------------------------------------- throughput


def test_ratio_is_of_medians_with_the_extremes_of_the_turns(throughput: ModuleType) -> None:
    def turns(*speeds: float) -> list[Any]:
        return [throughput.Sample(int(speed * 2), 2, 2.0) for speed in speeds]

    samples = {
        "limelight shared numpy": turns(300, 400, 100),
        "limelight shared torch": turns(50, 50, 50),
        "sb3": turns(100, 100, 200),
    }
    summary = throughput.summarize(samples)
    fast = summary["limelight shared numpy"]
    assert fast["steps_per_second"] == 300.0
    assert fast["updates_per_second"] == 1.0
    assert fast["ratios"] == {
        "sb3": {"of_medians": 3.0, "lowest": 0.5, "highest": 4.0},
        "autograd": {"of_medians": 6.0, "lowest": 2.0, "highest": 8.0},
    }
    assert set(summary["limelight shared torch"]["ratios"]) == {"sb3"}
    apart = throughput.summarize(
        {"limelight shared numpy sync": turns(1, 2), "limelight shared numpy envpool": turns(4, 4)}
    )
    assert apart["limelight shared numpy envpool"]["ratios"]["sync"]["of_medians"] == pytest.approx(8 / 3)
    assert "× sync" in throughput.table({"16x5": {"contenders": apart}})
    assert summary["sb3"]["ratios"] == {}
    table = throughput.table({"8x5": {"contenders": summary}})
    assert "3.00 (0.50–4.00)" in table
    alone = {"sb3": summary["sb3"]}
    assert "×" not in throughput.table({"8x5": {"contenders": alone}}).splitlines()[0].replace("envs × ", "")


def test_backends_are_what_they_are_called(throughput: ModuleType) -> None:
    for backend in ("numpy", "torch"):
        ours = throughput.Ours(throughput.SHAPES["8x5"], "separate", backend, 0)
        assert isinstance(ours.runner.actor_learner.learner.network, NumpyNetwork) == (backend == "numpy")
        before = ours.runner.actor_learner.learner.flat.params.clone()
        sample = ours.turn(0.02)
        ours.close()
        assert not before.equal(ours.runner.actor_learner.learner.flat.params)
        assert sample.steps == ours.runner.num_steps > 0
        assert sample.updates == ours.runner.actor_learner.learner.num_updates


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_network_compared_is_that_of_the_peer(throughput: ModuleType, env_id: str) -> None:
    pytest.importorskip("stable_baselines3")
    shape = throughput.replace(throughput.SHAPES["8x5"], env_id=env_id)
    ours, peer = throughput.Ours(shape, "separate", "numpy", 0), throughput.StableBaselines3(shape, 0)
    theirs = sum(parameter.numel() for parameter in peer.model.policy.parameters())
    group = peer.model.policy.optimizer.param_groups[0]
    ours.close()
    peer.close()
    config = throughput.make_config(shape, "separate", 0)
    assert len(ours.runner.actor_learner.learner.flat) == theirs
    assert (config.optim.learning_rate, config.optim.rms_alpha) == (group["lr"], group["alpha"])
    assert config.optim.optim_eps == group["eps"]
    assert config.optim.max_grad_norm == peer.model.max_grad_norm
    algorithm = config.algorithm
    assert (algorithm.gamma, algorithm.gae_lambda) == (peer.model.gamma, peer.model.gae_lambda)
    assert (algorithm.ent_coef, algorithm.vf_coef) == (peer.model.ent_coef, peer.model.vf_coef)


def test_throughput_runs(throughput: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "throughput.json"
    arguments = ["--shapes", "8x5", "1x1", "--repeats", "2", "--seconds", "0.02", "--backend", "numpy", "torch"]
    assert throughput.main([*arguments, "--peer", "auto", "--output", str(output)]) == 0
    data = json.loads(output.read_text(encoding="utf-8"))
    assert data["benchmark"] == "throughput"
    assert data["results"]["8x5"]["config"]["num_envs"] == 8
    assert data["results"]["1x1"]["config"]["policy_weight"] == "q"
    row = data["results"]["8x5"]["contenders"]["limelight separate numpy"]
    assert len(row["samples"]) == 2
    assert row["ratios"]["autograd"]["of_medians"] > 0
    assert ("sb3" in data["results"]["8x5"]["contenders"]) == (data["settings"]["peer"] == "sb3")
    printed = capsys.readouterr().out
    assert "| 8 × 5 " in printed
    assert str(output) in printed


def test_throughput_of_another_environment_by_several_backends(throughput: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "throughput.json"
    arguments = ["--env", "Pendulum-v1", "--env-backend", "sync", "auto", "--repeats", "1", "--seconds", "0.02"]
    assert throughput.main([*arguments, "--output", str(output)]) == 0
    data = json.loads(output.read_text(encoding="utf-8"))
    assert list(data["results"]) == ["16x5"]
    assert data["settings"]["env_backend"] == ["sync", "auto"]
    assert (data["results"]["16x5"]["config"]["env_id"], data["settings"]["env_id"]) == ("Pendulum-v1",) * 2
    names = set(data["results"]["16x5"]["contenders"])
    assert names >= {"limelight separate numpy sync", "limelight separate numpy"}


def test_a_missing_peer_is_named(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "find_spec", lambda _name: None)
    assert throughput.main(["--peer", "sb3"]) == 2
    assert "limelight-rl[sb3]" in capsys.readouterr().err


# --------------------------------------------------------------------------- learning


def row_of(seed: int, best: float, last: float, reached: int | None) -> dict[str, Any]:
    summary = {"wall_seconds": 2.0, "status": "completed"}
    row = {"seed": seed, "commit": "c", "error": None, "summary": summary, "reached_at_step": reached}
    return {**row, "best": [best] * 4, "last": [last] * 4}


@pytest.mark.slow
def test_atari_runs(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ale_py")
    atari = script("atari")
    settings_of = atari.settings_of  # of these the one that the others are compared with is enough
    monkeypatch.setattr(atari, "settings_of", lambda args: {atari.CLASSIC: settings_of(args)[atari.CLASSIC]})
    output = tmp_path / "atari.json"
    words = ["--workers", "1", "--repeats", "1", "--seconds", "0.5", "--output", str(output)]
    assert atari.main(words) == 0
    saved, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert set(saved["results"]) == {atari.CLASSIC, atari.EMULATOR}
    for name, row in saved["results"].items():
        assert name in printed
        assert row["steps_per_second"] > 0
        assert row["ratios"]["emulator"]["of_medians"] > 0
    for spent in saved["shares"].values():
        assert sum(spent.values()) == pytest.approx(1.0)
        assert spent["environments"] > 0


def test_the_classic_script_learns_from_discounted_rewards(script: Script) -> None:
    """Two steps and a value behind them, by hand."""
    classic = script("classic")
    log_probs, entropies = ([torch.tensor([x]) for x in row] for row in ((-0.5, -1.0), (0.3, 0.6)))
    values = [torch.tensor([x]) for x in (1.0, 2.0, 4.0)]
    loss = classic.loss_of([1.0, 0.0], log_probs, values, entropies)
    second = 0.99 * 4.0 - 2.0
    first = 1.0 + 0.99 * 0.99 * 4.0 - 1.0
    expected = 0.5 * (first**2 + second**2) + 0.5 * first + 1.0 * second - 0.01 * 0.9
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_the_classic_script_takes_its_turn(script: Script) -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    classic = script("classic")
    contender = classic.ClassicScript("ALE/Pong-v5", 1, 0)
    try:
        assert contender.turn(0.5).steps > 0
    finally:
        contender.close()


@pytest.mark.slow
def test_minutes_to_score_runs_and_reads_what_is_there(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score, output = script("minutes_to_score"), tmp_path / "score.json"
    words = ["--env", "CartPole-v1", "--algo", "a2c", "--goal", "15", "--seeds", "1", "--goes-on", "0"]
    words += ["--runs", str(tmp_path / "runs"), "--output", str(output)]
    endless = ["--", "--eval-every", "0", "--log-every", "500", "--no-tensorboard", "--total-timesteps", "900_000_000"]
    assert score.main([*words, *endless]) == 0
    rows = json.loads(output.read_text())["results"]["1"]
    assert rows[0]["step"] < rows[-1]["step"] < 900_000_000
    assert rows[0]["rollout/ep_rew_mean"] >= 15.0
    summary = json.loads((tmp_path / "runs" / "seed-1" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    printed = capsys.readouterr().out
    assert f"| 1      | {rows[0]['seconds'] / 60:.1f} " in printed
    monkeypatch.setattr(score, "run", None)  # it is there
    assert score.main([*words[:5], "1e9", *words[6:]]) == 0
    assert "never" in capsys.readouterr().out


def test_classic_pong_puts_both_presets_into_one_table(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pong = script("classic_pong")
    commands: list[list[str]] = []

    def play(words: list[str], folder: Path, goal: float, goes_on: float) -> None:
        commands.append(words)
        folder.mkdir(parents=True)
        mean = 10.0 if "pong" in words else -20.0
        rows = [{"step": s, "seconds": s / 10, "rollout/ep_rew_mean": mean + s / 100} for s in (400, 1000)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(pong, "run", play)
    words = ["--seeds", "1", "--every", "500", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "r.json")]
    for _ in range(2):  # the second time, the runs are there
        assert pong.main([*words, "--workers", "3"]) == 0
    assert len(commands) == 2
    for command, preset in zip(commands, ("classic-a3c", "pong"), strict=True):
        config = train_request(command, lambda text: pytest.fail(text)).config
        assert (config.preset, config.algorithm.algo, config.workers.num_workers) == (preset, "a3c", 3)
    printed = capsys.readouterr().out
    assert "| classic-a3c | 1    | -10.0 | -10.0 | never" in printed
    assert "| pong        | 1    | 20.0  | 20.0  | 1,000" in printed
    assert json.loads((tmp_path / "r.json").read_text())["results"]["pong"]["1"][0]["step"] == 400


@pytest.mark.slow
def test_scaling_runs(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    scaling, output = script("scaling"), tmp_path / "scaling.json"
    monkeypatch.setattr(scaling, "KINDS", dict(list(scaling.KINDS.items())[:2]))
    words = ["--workers", "1", "--repeats", "1", "--seconds", "0.2", "--wait", "0.001", "--num-steps", "4"]
    assert scaling.main([*words, "--shape", "1", "2", "--output", str(output)]) == 0
    saved, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert set(saved["overhead"]["milliseconds"]) == {"local", "asynchronous, gradients"}
    assert 0.6e6 < saved["overhead"]["parameters"] < 0.8e6
    assert saved["overhead"]["overhead"]["local"] == 0.0
    assert saved["growth"]["asynchronous, gradients"]["1"][0] > 0
    assert saved["overhead"]["ray_alone"] > 0
    assert "over local, ms" in printed


def test_every_job_can_work_and_every_variant_changes_something(learning: ModuleType) -> None:
    configs = {name: learning.config_of(job) for name, job in learning.JOBS.items()}
    for name, config in configs.items():
        base = name.partition("/")[0]
        assert name == base or config != configs[base]
    assert "seed" not in configs["a2c"]


def test_ablation_adds_the_variants(learning: ModuleType) -> None:
    assert [job.name for job in learning.choose(["ac/no-baseline", "a2c"], False)] == ["ac/no-baseline", "a2c"]
    names = [job.name for job in learning.choose(["ac", "ac/no-baseline"], True)]
    assert names[:2] == ["ac", "ac/no-baseline"]
    assert len(set(names)) == len(names) > 2
    assert learning.JOBS["ac/no-baseline"].settings["normalize_advantages"] == "none"


def test_tables_count_seeds_and_keep_failed_ones(learning: ModuleType) -> None:
    job = learning.JOBS["a2c"]
    failed = {"seed": 2, "commit": "c", "error": "ConfigError: a | b"}
    runs = [row_of(0, 500.0, 100.0, 10_000), row_of(1, 500.0, 500.0, 30_000), failed]
    data = {"jobs": {"a2c": {"threshold": 495.0, "runs": runs}}}
    cells = [cell.strip() for cell in learning.jobs_table(data, [job]).splitlines()[2].split("|")[1:-1]]
    assert cells == [
        "a2c", "495", "3", "1", "500.0 [500.0, 500.0]", "2/3", "300.0 [100.0, 500.0]", "1/3", "30,000", "never", "2.0",
    ]  # fmt: skip
    seeds = learning.seeds_table(data, [job]).splitlines()
    assert len(seeds) == 5
    assert "failed: ConfigError: a / b" in seeds[4]
    assert "10,000" in seeds[2]


@pytest.mark.slow
def test_learning_goes_on_where_it_was(
    learning: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "learning.json"
    arguments = ["--jobs", "a2c", "--episodes", "3", "--total-timesteps", "512", "--output", str(output)]
    script = [sys.executable, str(BENCHMARKS / "learning.py"), "--seeds", "2", "--parallel", "2"]
    done = subprocess.run([*script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| a2c" in done.stdout
    first = json.loads(output.read_text(encoding="utf-8"))["jobs"]["a2c"]["runs"]
    assert [run["seed"] for run in first] == [0, 1]

    assert learning.main([*arguments, "--seeds", "3"]) == 0
    assert "[1/1] a2c seed 2" in capsys.readouterr().err
    runs = json.loads(output.read_text(encoding="utf-8"))["jobs"]["a2c"]["runs"]
    assert runs[:2] == first
    for run in runs:
        assert len(run["best"]) == len(run["last"]) == 3
        assert run["summary"]["total_timesteps"] >= 512
        assert run["curve"]["step"] == [run["summary"]["total_timesteps"]]
        assert run["reached_at_step"] is None

    assert learning.main([*arguments, "--seeds", "3", "--episodes", "4"]) == 2
    assert "a2c was run with other episodes" in capsys.readouterr().err
    before = output.read_text(encoding="utf-8")
    assert learning.main([*arguments, "--seeds", "3"]) == 0
    assert output.read_text(encoding="utf-8") == before


def test_learning_judges_the_run_as_it_judged_itself(learning: ModuleType) -> None:
    job = learning.replace(learning.JOBS["ac"], total_timesteps=300, threshold=1.0)
    row = learning.run_seed(job, 3, 100)
    assert row["error"] is None
    assert np.mean(row["best"]) == pytest.approx(row["summary"]["final_eval_return"])
    assert row["reached_at_step"] == 300
    assert row["total_seconds"] > row["summary"]["wall_seconds"]


def test_a_failed_seed_is_a_row(learning: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(learning, "_train_and_evaluate", fail)
    arguments = ["--jobs", "ac", "--seeds", "1", "--output", str(tmp_path / "r.json")]
    assert learning.main(arguments) == 1
    runs = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["jobs"]["ac"]["runs"]
    assert runs[0]["error"] == "RuntimeError: boom"
    monkeypatch.undo()
    assert learning.main([*arguments]) == 1, "a failed seed is not tried again"


def test_an_interrupted_seed_is_no_row(learning: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "_train_and_evaluate", interrupt)
    arguments = ["--jobs", "ac", "--seeds", "1", "--output", str(tmp_path / "r.json")]
    assert learning.main(arguments) == 130
    assert not (tmp_path / "r.json").exists()


# --------------------------------------------------------------------------- time to score


def planted(contender: str, seed: int, seconds: float, reached: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "row": "CartPole-v1", "contender": contender, "seed": seed, "score": 475, "reached": reached,
        "seconds": seconds, "commit": "c", "settings": {}, **more,
    }  # fmt: skip


@pytest.mark.slow
def test_time_to_score_runs_once(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score, output = script("time_to_score"), tmp_path / "score.json"
    tasks = {"CartPole-v1": score.Task("CartPole-v1", 5, 256), "Acrobot-v1": score.Task("Acrobot-v1", 1e9, 100_000)}
    monkeypatch.setattr(score, "TASKS", tasks)
    words = ["--contenders", "a2c", "--seeds", "1", "--output", str(output)]
    assert score.main([*words, "--rows", "CartPole-v1"]) == 0
    (row,) = json.loads(output.read_text())["rows"]
    assert row["reached"] is True
    assert 256 <= row["steps"] < 768  # the end of a rollout
    assert row["ended_by"] == "score"
    assert 0 < row["seconds"] < row["total_seconds"]
    assert row["evaluations"][0][:2] == [row["steps"], round(row["seconds"], 3)]
    assert score.main([*words, "--rows", "Acrobot-v1", "--steps", "300", "--deadline", "600"]) == 0
    stopped = json.loads(output.read_text())["rows"][1]
    assert (stopped["reached"], stopped["ended_by"]) == (False, "steps")
    assert 300 <= stopped["steps"] < 200_000
    assert "never (> " in capsys.readouterr().out
    monkeypatch.setattr(score, "ProcessPoolExecutor", None)  # nothing is run again
    assert score.main(words) == 0
    monkeypatch.setattr(score, "TASKS", {**tasks, "CartPole-v1": score.Task("CartPole-v1", 6, 256)})
    assert score.main(words) == 2
    assert "CartPole-v1, a2c, seed 0 was run with other score" in capsys.readouterr().err


def test_time_to_score_has_medians_nevers_and_ratios(script: Script) -> None:
    score = script("time_to_score")
    rows = [
        *(planted("a2c", i, seconds) for i, seconds in enumerate([2.0, 4.0, 3.0])),
        planted("ppo", 0, 8.0), planted("ppo", 1, 50.0, False), planted("ppo", 2, 9.0),
        *(planted("zoo-ppo", i, 30.0, False) for i in range(3)),
        planted("zoo-a2c", 0, 0.0, False, error="boom"),
    ]  # fmt: skip
    cells = [each.strip() for each in score.table(rows).splitlines()[2].split("|")[1:-1]]
    assert cells == [
        "CartPole-v1", "475", "3.0 [2.0–4.0], 3/3", "9.0 [8.0–never], 2/3", "never (> 30.0 s), 0/3", "failed, 0/1",
        "> 10",
    ]  # fmt: skip
    assert score.ratio([*rows, *(planted("zoo-a2c", i, 6.0) for i in (1, 2, 3))], "CartPole-v1") == "2"
    assert score.ratio([planted("a2c", 0, 20.0, False), planted("zoo-ppo", 0, 10.0)], "CartPole-v1") == "< 0.5"
    assert score.ratio([planted("a2c", 0, 20.0)], "CartPole-v1") == "–"
    untuned = planted("zoo-a2c", 0, 6.0, settings={"zoo_id": "Ant-v4", "normalize": True, "n_timesteps": 1e6})
    assert score.cell([untuned]).endswith("1/1\\*")


def test_time_to_score_has_a_deadline_in_seconds_or_by_the_best_of_ours(script: Script) -> None:
    score = script("time_to_score")
    task = score.TASKS["CartPole-v1"]
    rows = [planted("a2c", 0, 3.0), planted("ppo", 0, 2.0, False)]
    assert score.deadline_of("600", [], task, "a2c") == 600.0
    assert score.deadline_of("10x", rows, task, "a2c") is None
    assert score.deadline_of("10x", rows, task, "zoo-ppo") == 30.0
    with pytest.raises(ValueError, match="no run of ours on CartPole-v1; run one, or give seconds"):
        score.deadline_of("10x", [], task, "zoo-ppo")
    jobs = score.jobs_left([], [task], ["a2c", "zoo-ppo"], [0, 1], True)
    assert [(name, seed) for _, name, seed in jobs] == [("a2c", 0), ("a2c", 1), ("zoo-ppo", 0), ("zoo-ppo", 1)]
    jobs = score.jobs_left([], [task], ["a2c", "zoo-ppo"], [0, 1], False)
    assert [(name, seed) for _, name, seed in jobs] == [("a2c", 0), ("zoo-ppo", 0), ("a2c", 1), ("zoo-ppo", 1)]


def test_time_to_score_writes_between_the_markers(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score, output, page = script("time_to_score"), tmp_path / "score.json", tmp_path / "page.md"
    for real in score.PAGES:
        assert real.read_text(encoding="utf-8").count(score.OPEN) == 1
        assert real.read_text(encoding="utf-8").count(score.CLOSE) == 1
    info = {"processor": "CPU", "cpu_count": 2, "stable-baselines3": "2.9.2"}
    output.write_text(json.dumps({"machine": info, "rows": [planted("a2c", 0, 3.0)]}), encoding="utf-8")
    page.write_text(f"before\n{score.OPEN}\nold\n{score.CLOSE}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(score, "PAGES", (page,))
    for _ in range(2):
        assert score.main(["--table", "--write", "--output", str(output)]) == 0
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"before\n{score.OPEN}\n\nSeconds of training")
        assert text.endswith(f"|\n\n{score.CLOSE}\nafter\n")
        assert "old" not in text
        assert text.count("| CartPole-v1 | 475   | 3.0 [3.0–3.0], 1/1 |") == 1
    page.write_text("no markers", encoding="utf-8")
    assert score.main(["--table", "--write", "--output", str(output)]) == 2
    assert "page.md: no <!-- time_to_score -->" in capsys.readouterr().err


def test_the_zoo_has_a_row_for_every_task(script: Script) -> None:
    score, zoo = script("time_to_score"), script("zoo")
    names = {(env_id, algo): zoo.zoo_id(env_id, algo) for env_id in score.TASKS for algo in zoo.TABLES}
    assert [key for key, name in names.items() if name == "default"] == [("InvertedDoublePendulum-v5", "a2c")]
    assert names["HalfCheetah-v5", "ppo"] == "HalfCheetah-v4"
    untuned = [key for key in names if not zoo.is_tuned(zoo.hyperparameters(*key))]
    assert untuned == [
        ("HalfCheetah-v5", "a2c"), ("Hopper-v5", "a2c"), ("Walker2d-v5", "a2c"), ("Ant-v5", "ppo"), ("Ant-v5", "a2c"),
        ("InvertedDoublePendulum-v5", "a2c"),
    ]  # fmt: skip
    assert zoo.schedule("lin_0.2")(0.25) == pytest.approx(0.05)
    assert zoo.schedule(3e-4) == 3e-4


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_the_zoo_follows_the_protocol(script: Script, env_id: str) -> None:
    """Evaluations come at the end of a rollout, outside the clock, and one that is confirmed ends the run."""
    pytest.importorskip("stable_baselines3")
    score, zoo = script("time_to_score"), script("zoo")
    seen, scale = [], zoo.hyperparameters(env_id, "a2c").get("n_envs", 1)
    settings = {**zoo.hyperparameters(env_id, "a2c"), "n_steps": 5, "n_timesteps": 400}

    def is_reached(step: int, seconds: float, play: Callable[[int, int], float]) -> bool:
        seen.append((step, seconds, play(2, 0)))
        return len(seen) == 2

    step, seconds = zoo.train_until(env_id, "a2c", settings, 0, 100, lambda *_: False, is_reached)
    assert [each[0] for each in seen] == [100 + -100 % (5 * scale), 200 + -200 % (5 * scale)]
    assert step == seen[1][0] + scale  # the step in which Stable-Baselines3 is told to stop
    assert 0 < seen[0][1] < seen[1][1] < seconds
    row = score.run_zoo(score.Task(env_id, -1e9, 100), "a2c", settings, 0, score.Limits(None, None))
    assert (row["reached"], row["steps"], row["ended_by"]) == (True, seen[0][0], "score")
    row = score.run_zoo(score.Task(env_id, 1e9, 100), "a2c", settings, 0, score.Limits(None, None))
    assert (row["reached"], row["ended_by"], row["evaluations"][-1][0]) == (False, "budget", row["steps"])
    assert (
        score.run_zoo(score.Task(env_id, 1e9, 1), "a2c", settings, 0, score.Limits(1e-9, None))["ended_by"]
        == "deadline"
    )


# --------------------------------------------------------------------------- startup


def test_startup_runs(startup: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "startup.json"
    assert startup.main(["--repeats", "1", "--seeds", "0", "--output", str(output)]) == 0
    data = json.loads(output.read_text(encoding="utf-8"))
    assert set(data["commands"]) == set(startup.COMMANDS)
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in data["commands"].values())
    assert "| limelight --help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("says", "verified"),
    [
        ("100 fresh greedy episodes confirm a return of 475: 500.0", True),
        ("100 fresh greedy episodes do not confirm a return of 475: 300.0", False),
    ],
)
def test_the_time_of_the_confirmation_is_taken(
    startup: ModuleType, monkeypatch: pytest.MonkeyPatch, says: str, verified: bool
) -> None:
    program = (
        "import sys, time, pathlib; print(sys.argv[1], file=sys.stderr, flush=True); time.sleep(0.2);"
        "pathlib.Path('run').mkdir(); pathlib.Path('run/summary.json').write_text('{\"solved_at_step\": 5}');"
        "print('bye'); sys.exit(3)"
    )
    monkeypatch.setattr(startup, "train_command", lambda _seed: ["-c", program, says])
    run = startup.verified_run(7)
    assert run["exit_status"] == 3
    assert run["last_line"] == "bye"
    assert run["summary"] == {"solved_at_step": 5}
    if verified:
        assert 0 < run["verified_seconds"] < run["command_seconds"] - 0.1
    else:
        assert run["verified_seconds"] is None
    table = startup.runs_table([run])
    assert ("never" in table) != verified
    assert "exit status 3: bye" in table


def test_the_confirmation_is_said_as_the_script_expects(startup: ModuleType, tmp_path: Path) -> None:
    messages: list[str] = []

    class Listener:
        def log(self, *_args: object) -> None: ...
        def episodes(self, *_args: object) -> None: ...
        def message(self, text: str) -> None:
            messages.append(text)

        def close(self) -> None: ...

    limelight.train(
        "CartPole-v1", quiet=True, loggers=[Listener()], stop_at_return=5.0, eval_every=256, eval_episodes=1,
        confirm_episodes=2, final_episodes=1, total_timesteps=256, tensorboard=False, run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert sum(bool(startup.CONFIRMED.search(text)) for text in messages) == 1
    assert not startup.CONFIRMED.search("20 fresh greedy episodes do not confirm a return of 475: 300.0")


def test_children_find_the_package_from_elsewhere(startup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "src")
    assert startup.environment()["PYTHONPATH"] == str(Path("src").resolve())
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in startup.environment()


# --------------------------------------------------------------------------- defaults.py


@pytest.fixture
def defaults(script: Script) -> ModuleType:
    return script("defaults")


def study_row(library: str, greedy: float, curve: list[list[float]], **other: Any) -> dict[str, Any]:
    return {"task": "two-actions", "library": library, "seed": 0, "greedy": greedy, "curve": curve, **other}


def test_the_study_compares_with_the_better_peer(defaults: ModuleType) -> None:
    ours = [study_row("limelight", g, [[0, 1.0, 5.0], [1, 2.0, 20.0]], best=20.0, seconds=2.0) for g in (19.0, 20.0)]
    slow = study_row("sb3-a2c", 18.0, [[0, 10.0, 5.0], [1, 40.0, 18.0]])
    worse = study_row("sb3-ppo", 10.0, [[0, 10.0, 5.0], [1, 40.0, 10.0]])
    text = defaults.comparison([*ours, slow, worse])
    assert "| above " in text
    assert "'above': 1, 'equal': 0, 'below': 0" in text
    assert "sooner × 20.0 in the median of 1" in text
    assert "in 2 of 2 runs" in text
    assert "'below': 1" in defaults.comparison([*ours, study_row("sb3-ppo", 21.0, slow["curve"])])
    assert "'equal': 1" in defaults.comparison([*ours, study_row("sb3-ppo", 19.5, slow["curve"])])


def test_a_score_that_is_never_reached_has_no_ratio(defaults: ModuleType) -> None:
    ours = [study_row("limelight", 5.0, [[0, 1.0, 5.0]], best=5.0)]
    peers = [study_row("sb3-ppo", 18.0, [[0, 10.0, 5.0], [1, 40.0, 18.0]])]
    assert defaults.sooner(ours, peers) is None
    assert defaults.sooner(peers, [{**peers[0], "timed": False}]) is None


@pytest.mark.parametrize("name", ["TwoActions", "Inventory", "Masked", "TupleKeys", "Machines", "Deal", "Chain"])
def test_tasks_of_the_study_are_environments(script: Script, name: str) -> None:
    env = getattr(script("study_envs"), name)()
    obs, _ = env.reset(seed=0)
    ended = False
    while not ended:
        assert env.observation_space.contains(obs)
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert np.isfinite(reward)
        ended = terminated or truncated


# --------------------------------------------------------------------------- viewing_cost


def test_the_cost_of_viewing_is_a_ratio_within_rounds(script: Script) -> None:
    viewing_cost = script("viewing_cost")
    names = viewing_cost.WAYS
    speeds = ([98.0, 196.0], [99.0, 198.0], [100.0, 198.0], [100.0, 200.0])
    found = dict(zip(names, speeds, strict=True))
    assert viewing_cost.table("x", found).splitlines()[-4:] == [
        "| page, shares and callback | 147 | 98.0% | 98.0% to 98.0% |",
        "| page and shares | 148 | 99.0% | 99.0% to 99.0% |",
        "| shares alone | 149 | 99.5% | 98.8% to 100.2% |",
        "| neither | 150 | 100.0% | 100.0% to 100.0% |",
    ]


def test_the_cost_of_viewing_is_measured_without_clocks_too(script: Script) -> None:
    from limelight.algo.stopwatch import Stopwatch

    viewing_cost = script("viewing_cost")
    before = Stopwatch.__call__
    case = {"env": "CartPole-v1", "num_envs": 8, "num_steps": 5}
    for way in (viewing_cost.WAYS[0], viewing_cost.WAYS[3]):
        assert viewing_cost.speed(case, way, 0.05, 0) > 0.0
    assert Stopwatch.__call__ is before
    with viewing_cost.clocks(False):
        timed = Stopwatch(lambda x: x + 1)
        assert timed(1) == 2
        assert timed.seconds == 0.0


# --------------------------------------------------------------------------- explain


def test_explain_goes_on_where_it_was_and_counts_alarms(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    explain = script("explain")
    tiny = {"total_timesteps": 600, "eval_every": 0}
    monkeypatch.setattr(explain, "SHORT", {**explain.SHORT, **tiny})
    monkeypatch.setattr(explain, "FAILING", explain.FAILING[:2])
    monkeypatch.setattr(explain, "HEALTHY", [explain.Healthy("limelight.envs.toy:Aim", "a2c", 600, -100.0)])
    output = ["--output", str(tmp_path / "explain.json")]
    explain.main(["--only", "failing", *output])
    assert "The true cause comes first in " in capsys.readouterr().out
    explain.main(["--seeds", "1", *output])
    capsys.readouterr()
    data = json.loads((tmp_path / "explain.json").read_text())
    assert [row["name"] for row in data["failing"]] == ["endless", "sensor"]
    assert [row["seed"] for row in data["healthy"]] == [10]
    data["healthy"][0]["findings"] = ["still_rising: 1 to 2"]
    (tmp_path / "explain.json").write_text(json.dumps(data))
    explain.main(["--table", *output])
    assert "1 of 1 healthy runs have a finding." in capsys.readouterr().out


# --------------------------------------------------------------------------- a3c_paper, env_share


@pytest.mark.slow
def test_step_sizes_are_log_uniform_and_each_has_a_run(script: Script, tmp_path: Path) -> None:
    output, plot = tmp_path / "s.json", tmp_path / "s.png"
    words = [
        "--steps",
        "2000",
        "--number",
        "2",
        "--range",
        "1e-3",
        "1e-2",
        "--output",
        str(output),
        "--plot",
        str(plot),
    ]
    script("a3c_paper").main(["step-sizes", *words])
    results = json.loads(output.read_text())["results"]
    assert [1e-3 <= row["learning_rate"] <= 1e-2 for row in results] == [True, True]
    assert all(row["return"] > 0 for row in results)
    assert plot.stat().st_size > 1000


@pytest.mark.slow
def test_a_score_is_timed_for_each_number_of_workers(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "w.json"
    words = ["--envs", "CartPole-v1", "--workers", "1", "--seeds", "1", "--score", "5", "--output", str(output)]
    script("a3c_paper").main(["workers", *words])
    (run,) = json.loads(output.read_text())["results"]["CartPole-v1"]["1"]
    assert run["seconds"] > 0
    assert "1 of 1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_share_of_the_environments_speed_is_below_one(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "e.json"
    words = ["--envs", "Acrobot-v1", "--num-envs", "4", "--num-workers", "1", "--repeats", "1", "--seconds", "1"]
    script("env_share").main([*words, "--output", str(output)])
    result = json.loads(output.read_text())["results"]["Acrobot-v1"]
    assert 0.0 < result["share"] < 1.0


# --------------------------------------------------------------------------- tune


def test_searches_are_begun_continued_and_read(script: Script, tmp_path: Path) -> None:
    from limelight.training.preset_file import PresetFile, write_preset

    tune = script("tune")
    for job, words in tune.JOBS.items():
        assert tune.words_of(job, tmp_path / "new", 2) == [
            *words,
            "--parallel",
            "2",
            "--run-dir",
            str(tmp_path / "new"),
        ]
    (tmp_path / "pendulum").mkdir()
    (tmp_path / "pendulum" / "tune.json").touch()
    assert tune.words_of("pendulum", tmp_path / "pendulum", 2)[0] == "--resume"
    row = {"name": "defaults", "iqm": 1.5, "interval": [1.0, 2.0], "score_in_search": None}
    path = tmp_path / "pendulum" / "preset.yaml"
    found = {"ranking": [row]}
    write_preset(PresetFile(str(path), "Pendulum-v1", "a2c", "none", {"gamma": 0.9}, found), "")
    output = tmp_path / "out.json"
    tune.main(["--jobs", "pendulum", "--folder", str(tmp_path), "--output", str(output)])
    saved = json.loads(output.read_text())["results"]["pendulum"]
    assert saved["settings"] == {"gamma": 0.9}
    assert tune.table({"pendulum": saved}).splitlines()[-1] == "| Pendulum-v1 | defaults | 1.5 | 1 to 2 | – |"
