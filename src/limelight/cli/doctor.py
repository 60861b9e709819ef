"""``limelight doctor``: the machine, the packages and a test of training, before a run and for bug reports."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, distribution, metadata, requires, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limelight.cli.arguments import DoctorArguments

PACKAGE = "limelight-rl"
LEAST_SHARED_MEMORY = 64 << 20
"""Bytes of /dev/shm below which workers may find no room; containers often have 64 MiB."""
STEPS = 2_000
_TOOLS = ("dev", "docs", "sb3", "all")
"""Extras for developers, or of other extras; they are not listed as missing."""
Facts = dict[str, Any]


def examine(run_dir: Path | None = None) -> Facts:
    """Return what the machine has, what is missing, and the result of the self-test.

    ``run_dir``: folder of the runs of the self-test; None: a temporary one.
    """
    from limelight.runs.folder import system_info

    facts: Facts = {"versions": {**system_info(), **_versions("matplotlib", "tensorboard", "safetensors")}}
    facts["versions"].pop("started")
    facts["cores"] = cores()
    facts["arithmetic"] = arithmetic()
    facts["shared_memory"] = shared_memory()
    facts["gpu"] = gpu()
    facts["extras_missing"] = missing_extras()
    if run_dir is None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            facts["self_test"] = self_test(Path(folder))
    else:
        facts["self_test"] = self_test(run_dir)
    return facts


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> Facts:
    """Return the cores of the machine, those that this process may use, and the limit of its container."""
    from limelight.envs.make import num_cores

    return {"machine": os.cpu_count(), "usable": num_cores(), "container_limit": _cgroup_limit(cgroup)}


def _cgroup_limit(cgroup: Path) -> float | None:
    """Return the cores that the control group grants; None: no limit, or none is known."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def arithmetic() -> Facts:
    """Return the BLAS libraries with their threads, and whether convolutions are faster in bfloat16."""
    import torch
    from threadpoolctl import threadpool_info

    from limelight.training.precision import prefers_bfloat16

    pools = [
        {"library": pool["internal_api"], "version": pool.get("version"), "threads": pool["num_threads"]}
        for pool in threadpool_info()
    ]
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return {
        "thread_pools": pools,
        "torch_threads": torch.get_num_threads(),
        "bfloat16_is_faster": prefers_bfloat16("cpu"),
        "amx": bool(amx),
    }


def shared_memory(folder: Path = Path("/dev/shm")) -> Facts | None:
    """Return the bytes of shared memory; None where it is no folder."""
    if not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return {"total": usage.total, "free": usage.free}


def gpu() -> Facts:
    """Return the GPUs that PyTorch sees."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"cuda": torch.version.cuda, "devices": [torch.cuda.get_device_name(i) for i in range(count)]}


def missing_extras() -> dict[str, list[str]]:
    """Return the packages that each extra lacks here, without the extras that lack none."""
    missing: dict[str, list[str]] = {}
    try:
        extras, lines = _extras(), requires(PACKAGE) or []
    except PackageNotFoundError:  # run from a source folder that is not installed
        return {}
    for line in lines:
        found = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if found is None or found[1] not in extras or found[1] in _TOOLS:
            continue
        name = _lacking(line)
        if name is not None and name not in missing.get(found[1], []):
            missing.setdefault(found[1], []).append(name)
    return missing


def _extras() -> list[str]:
    return metadata(PACKAGE).get_all("Provides-Extra") or []


def _lacking(line: str) -> str | None:
    """Return the package that a requirement asks for, if it is not installed; of gymnasium's extras their module."""
    name = re.match(r"[A-Za-z0-9._-]+", line)
    assert name is not None
    extra = re.search(r"\[([^]]+)\]", line.partition(";")[0])
    if extra is not None:
        return None if find_spec({"box2d": "Box2D"}.get(extra[1], extra[1])) else extra[1]
    try:
        distribution(name[0])
    except PackageNotFoundError:
        return name[0]
    return None


def self_test(folder: Path, steps: int = STEPS) -> Facts:
    """Train, resume from the middle, and compare the parameters' hashes: they are equal where resuming is exact."""
    import limelight
    from limelight.errors import LimelightError

    start = time.perf_counter()
    settings: Facts = {
        "seed": 1, "total_timesteps": steps, "checkpoint_every": steps // 2, "eval_every": 0,
        "final_episodes": 0, "tensorboard": False, "device": "cpu",
    }  # fmt: skip
    try:
        whole = limelight.train("CartPole-v1", run_dir=str(folder / "whole"), quiet=True, **settings)
        shutil.copytree(folder / "whole", folder / "resumed")
        checkpoints = sorted((folder / "resumed" / "checkpoints").iterdir())
        for last in checkpoints[1:]:
            shutil.rmtree(last)
        with redirect_stderr(StringIO()):  # it says at which step
            resumed = limelight.resume(folder / "resumed", quiet=True)
        hashes = [_hash_of(result.agent) for result in (whole, resumed)]
    except (LimelightError, OSError, RuntimeError) as error:
        return {"passed": False, "reason": " ".join(f"{type(error).__name__}: {error}".split())}
    speed = whole.summary["steps_per_second"]
    return {
        "passed": hashes[0] == hashes[1] and len(checkpoints) > 1, "steps_per_second": speed,
        "hashes": hashes, "seconds": time.perf_counter() - start,
    }  # fmt: skip


def _hash_of(agent: Any) -> str:
    return hashlib.sha256(agent.get_state()["params"].numpy().tobytes()).hexdigest()[:16]


def advice(facts: Facts) -> list[str]:
    """Return a line for everything that would hold training up, with what would help."""
    lines = []
    limit, usable = facts["cores"]["container_limit"], facts["cores"]["usable"]
    if limit is not None and limit < usable:
        lines.append(f"the container grants {limit:g} of {usable} cores: --num-workers {max(1, int(limit))}")
    room = facts["shared_memory"]
    if room is not None and room["free"] < LEAST_SHARED_MEMORY:
        lines.append(f"/dev/shm has {room['free'] >> 20} MiB free: workers need more; docker run --shm-size 1g")
    if not facts["self_test"]["passed"]:
        reason = facts["self_test"].get("reason", "the resumed run has other parameters than the uninterrupted one")
        lines.append(f"the self-test failed: {reason}; please report it with the output of limelight doctor --json")
    return lines


def as_lines(facts: Facts) -> list[str]:
    """Return the facts as lines of text."""
    v, c, a = facts["versions"], facts["cores"], facts["arithmetic"]
    names = (PACKAGE, "python", "torch", "numpy", "gymnasium")
    pools = ", ".join(
        f"{p['library']} {p['version'] or ''} × {p['threads']}".replace("  ", " ") for p in a["thread_pools"]
    )
    room, test = facts["shared_memory"], facts["self_test"]
    limit = "" if c["container_limit"] is None else f", the container grants {c['container_limit']:g}"
    rows = [
        ("versions", ", ".join(f"{name} {v[name]}" for name in names)),
        ("machine", f"{v['platform']}, {v['processor']}"),
        ("cores", f"{c['usable']} usable of {c['machine']}{limit}"),
        ("arithmetic", f"{pools}; bfloat16 {'faster' if a['bfloat16_is_faster'] else 'not faster'} than float32"),
        ("shared memory", "no /dev/shm" if room is None else f"{_mib(room['free'])} of {_mib(room['total'])} MiB free"),
        ("GPU", ", ".join(facts["gpu"]["devices"]) or "none that PyTorch sees"),
    ]  # fmt: skip
    for extra, names_ in facts["extras_missing"].items():
        rows.append((f"extra {extra}", f"lacks {', '.join(names_)}: pip install '{PACKAGE}[{extra}]'"))
    passed = "trained, resumed, equal parameters" if test["passed"] else "failed"
    speed = f", {test['steps_per_second']:,.0f} steps/s" if test["passed"] else ""
    rows.append(("self-test", passed + speed))
    lines = [f"{name:14} {text}" for name, text in rows]
    return [*lines, *(f"{'advice':14} {line}" for line in advice(facts))]


def _mib(size: int) -> str:
    return f"{size >> 20:,}"


def doctor(arguments: DoctorArguments) -> int:
    """Print the examination; the status is 0 if the self-test passed."""
    from limelight.cli.output import stdout_reserved
    from limelight.runs.folder import as_json

    if not arguments.json:
        print("limelight doctor: the self-test takes some seconds", file=sys.stderr)
    with stdout_reserved():
        facts = examine()
    print(
        json.dumps(as_json({**facts, "advice": advice(facts)}), allow_nan=False)
        if arguments.json
        else "\n".join(as_lines(facts))
    )
    return 0 if facts["self_test"]["passed"] else 1
