"""Exported files: what they hold, that they equal ``predict``, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import limelight
from helpers.composite_envs import Doors
from helpers.export_agents import KINDS, make_agent
from helpers.settings import one_line
from limelight.errors import ConfigError
from limelight.runs.export import export as module
from limelight.runs.export.formats import FORMATS, INSTALL
from limelight.runs.export.parity import Parity, Run
from limelight.runs.export.ports import Arrays, Ports


@pytest.fixture
def agent() -> limelight.Agent:
    return make_agent(KINDS["discrete"])


def onnx_session(path: Path) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


def test_an_onnx_file_has_open_axes_and_says_what_it_is(agent: limelight.Agent, tmp_path: Path) -> None:
    needs_onnx()
    path = tmp_path / "new" / "agent.onnx"
    outside = tmp_path / "outside"
    outside.write_text("precious")
    path.parent.mkdir()
    path.with_name(f".{path.name}.tmp").symlink_to(outside)  # as a folder of a stranger may have it
    exported = limelight.export(agent, path, metadata={"scores": {"best": 3.5}, "note": "mine"}, observations=10)
    assert outside.read_text() == "precious"
    assert exported.path == path
    assert [file.name for file in path.parent.iterdir()] == ["agent.onnx"]
    session = onnx_session(path)
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("obs", ["batch", 3], "tensor(float)")]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("action", ["batch"]), ("params", ["batch", 4])]
    for batch in (1, 7):
        obs = np.random.default_rng(batch).uniform(-5, 5, (batch, 3)).astype(np.float32)
        np.testing.assert_array_equal(session.run(["action"], {"obs": obs})[0], agent.predict(obs)[0])
    found = session.get_modelmeta().custom_metadata_map
    assert found["limelight"] == limelight.__version__
    assert found["env_id"] == agent.config.env.env_id
    assert json.loads(found["seed"]) == agent.config.seed
    assert json.loads(found["scores"]) == {"best": 3.5}
    assert found["note"] == "mine"
    assert json.loads(found["action_space"])["start"] == 2
    assert json.loads(found["inputs"]) == [{"name": "obs", "dtype": "float32", "shape": ["batch", 3]}]


@pytest.mark.slow
def test_a_torch_file_needs_no_limelight(agent: limelight.Agent, tmp_path: Path) -> None:
    path = tmp_path / "agent.pt2"
    exported = agent.export(path, deterministic=False)
    assert "random ones" in exported.origin  # its environment has other observations
    assert exported.parity.observations == 1000
    obs = np.random.default_rng(0).uniform(-5, 5, (5, 3)).astype(np.float32)
    code = (
        "import json, sys, torch\n"
        "sys.modules['limelight'] = None\n"
        "extra = {'metadata.json': ''}\n"
        f"module = torch.export.load({str(path)!r}, extra_files=extra).module()\n"
        f"action, params = module(torch.tensor({obs.tolist()}), torch.full((5, 1), 0.5))\n"
        "print(json.dumps([action.tolist(), json.loads(extra['metadata.json'])]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    action, metadata = json.loads(done.stdout.splitlines()[-1])
    params = agent.network.model.policy(torch.from_numpy(agent.normalize(obs))[None])[0][0].detach()
    assert action == agent.model.distribution.sample(params, torch.full((5, 1), 0.5)).tolist()
    assert metadata["actions"] == "sampled"
    assert metadata["noise"] == ["uniform"]
    assert metadata["inputs"][1] == {"name": "noise", "dtype": "float32", "shape": ["batch", 1]}
    first, *ports = exported.lines()
    assert first.startswith(f"{path}: largest difference ")
    assert " over 1,000 observations of random ones" in first
    assert ports == [
        "input   obs     float32  [batch, 3]",
        "input   noise   float32  [batch, 1]",
        "output  action  int64    [batch]",
        "output  params  float32  [batch, 4]",
    ]


def test_it_is_compared_on_episodes_of_its_environment(tmp_path: Path) -> None:
    result = limelight.train(
        Doors, algo="a2c", num_envs=2, total_timesteps=40, eval_every=0, final_episodes=0, quiet=True, backend="sync",
        run_dir=tmp_path / "run", tensorboard=False,
    )  # fmt: skip
    exported = limelight.export(result.agent, tmp_path / "agent.pt2", observations=50)
    assert exported.origin.startswith("episodes of ")
    assert 50 <= exported.parity.observations <= 60
    assert exported.parity.difference < 1e-5
    assert "action_mask" in [port.name for port in exported.ports.inputs]


def test_a_file_that_differs_is_refused(
    agent: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.pt2"
    path.write_text("before")
    monkeypatch.setattr(module, "compare", lambda *args: Parity(2e-5, "params", 1000, 0))
    with pytest.raises(ConfigError) as error:
        agent.export(path)
    assert one_line(error).startswith(
        f"{path}: is not written, as its params differs from predict by up to 2e-05 over 1,000 observations"
    )
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["agent.pt2"]


def test_a_file_of_one_batch_size_is_refused(
    agent: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_row_only(path: Path, ports: Ports) -> Run:
        def run(inputs: Arrays) -> Arrays:
            if len(inputs["obs"]) != 1:
                raise RuntimeError("invalid dimensions\nGot: 999 Expected: 1")
            return {"action": np.zeros(1, np.int64), "params": np.zeros((1, 4), np.float32)}

        return run

    monkeypatch.setitem(FORMATS, "torch", FORMATS["torch"]._replace(open=one_row_only))
    with pytest.raises(ConfigError) as error:
        agent.export(tmp_path / "agent.pt2")
    assert one_line(error) == "format = torch: the file cannot be run (RuntimeError: invalid dimensions)"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_loaded_is_refused(
    agent: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(program: object, ports: Ports, path: Path, metadata: dict[str, Any]) -> None:
        path.write_text("no archive")

    monkeypatch.setitem(FORMATS, "torch", FORMATS["torch"]._replace(write=damaged))
    with pytest.raises(ConfigError, match="format = torch: the file cannot be loaded"):
        agent.export(tmp_path / "agent.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_looks_at_its_values_is_refused(tmp_path: Path) -> None:
    kind = KINDS["own"]._replace(settings={"encoder": "helpers.export_agents:Branching"})
    with pytest.raises(ConfigError) as error:
        make_agent(kind).export(tmp_path / "agent.pt2")
    assert "export: torch.export cannot trace this network (" in one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("a.h5", {}, "must end in .onnx or .pt2; or give format, onnx or torch"),
        ("a.onnx", {"format": "onx"}, "format = 'onx': must be onnx | torch; did you mean onnx?"),
        ("a.onnx", {"format": 3}, "format = 3: must be onnx | torch"),
        ("a.onnx", {"format": "torch"}, "is the name of a file of format onnx, not torch; end it in .pt2"),
        (".", {}, "is a folder; name a file in it, such as "),
        ("a.pt2", {"observations": 0}, "observations = 0: must be ≥ 1"),
        ("a.pt2", {"observations": "many"}, "observations = 'many': must be a whole number"),
        ("a.pt2", {"deterministic": "yes"}, "deterministic = 'yes': must be true or false"),
        (
            "a.pt2",
            {"metadata": {"x": object()}},
            "metadata: must hold texts, numbers, lists and dicts alone (",
        ),
        ("a.pt2", {"metadata": 3}, "metadata = 3: must be a dict of names"),
        ("file/a.pt2", {}, "cannot be written (File exists)"),
    ],
)
def test_what_cannot_work_is_refused(
    agent: limelight.Agent, tmp_path: Path, path: str, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as error:
        limelight.export(agent, tmp_path / path, **settings)
    assert message in one_line(error)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["", 3, None])
def test_a_path_must_be_a_name(agent: limelight.Agent, path: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be the name of a file, such as agent\.onnx"):
        limelight.export(agent, path)


def test_what_is_no_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a path; pass the agent that is saved there"):
        limelight.export("runs/first", tmp_path / "a.onnx")  # type: ignore[arg-type]


def test_a_missing_package_is_named(agent: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limelight.runs.export.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        agent.export(tmp_path / "a.onnx")
    assert one_line(error) == (
        f"format = onnx: needs onnx, onnxscript, onnxruntime, not installed here; {INSTALL}, or format torch needs "
        "no more"
    )


def test_an_old_torch_is_named(agent: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.5.1"))
    with pytest.raises(ConfigError, match=r"needs PyTorch 2.8 or newer, and this is 2.5.1; pip install"):
        agent.export(tmp_path / "a.pt2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "deterministic"),
    [
        ("rescaled", False), ("squashed", True), ("multi-discrete", False), ("multi-binary", True), ("images", True),
        ("sensors", False), ("masked", False), ("own-images", True), ("lstm", True), ("gru", False),
    ],
)  # fmt: skip
def test_files_of_every_kind_equal_predict(name: str, deterministic: bool, tmp_path: Path) -> None:
    needs_onnx()
    exported = make_agent(KINDS[name]).export(tmp_path / "agent.onnx", deterministic=deterministic)
    assert exported.parity.difference < 1e-5
    assert exported.parity.observations == 1000
    if exported.ports.axes == ("time", "batch"):
        shapes = {i.name: i.shape for i in onnx_session(exported.path).get_inputs()}
        assert shapes["episode_start"] == ["time", "batch"]
        assert shapes["state"][0] == "batch"


@pytest.mark.slow
def test_a_torch_file_with_memory_has_open_axes(tmp_path: Path) -> None:
    exported = make_agent(KINDS["lstm"]).export(tmp_path / "agent.pt2")
    assert exported.parity.difference < 1e-5
    assert FORMATS["torch"].suffix == ".pt2"
