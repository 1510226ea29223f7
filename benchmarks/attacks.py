"""Attack blocklab's files, names and options a thousand times; count held, refused and fault.

    python benchmarks/attacks.py [--attacks 1000] [--seed 0] [--only KIND] [--number N] [--json]

Each attack is a function of the seed and its number. *Held*: the command ended with status 0.
*Refused*: one line of error and status 1 or 2. *Fault*: anything else: a traceback, "a fault of
blocklab's", a process that dies, takes over five minutes, or over 2 GB more memory. Commands run
one after another in a child process that is watched; another takes its place if it dies.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from blocklab.cli import app
from blocklab.execution import train_studies
from blocklab.files import write_checked_json
from blocklab.study.study import Study
from blocklab.training.checkpoints import KEEP_VARIABLE
from blocklab.training.run import execute_run
from blocklab.training.run_folder import write_result

BOUND_SECONDS, BOUND_BYTES = 300.0, 2 << 30
TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}
STUDY: dict[str, Any] = {
    "title": "A study",
    "data": {"source": "digits", "train_images": 60, "test_images": 50},
    "recipe": {"base": "quick", "epochs": 1, "batch_size": 20},
    "seeds": 2,
    "varies": ["attention"],
    "rows": {"plain": TINY, "se": {**TINY, "attention": ["se"]}},
    "claims": ["se > plain"],
    "reported": {"plain": {"top1": 50.0, "macs_g": 0.1}},
    "notes": ["a note"],
}
TINY_TEXT = "resnet20:widths=[4,8,8],depths=[1,1,1]"
RUN_FILES = ("run.json", "result.json", "log.jsonl", "predictions.npz", "model.safetensors")
NUMBERS = (0, -1, 1, 5, 10**6, 2**31, 2**63, 2**64, -(2**70), 10**30, 10**400)
REALS = (0.0, -0.5, 1e-300, 1e300, float("inf"), float("nan"))
WORDS = (
    *("", " ", "x", "none", "true", "1e-3", "nan", "se", "resnet20", "..", "../../x", "/dev/zero"),
    *("a\rb", "a\nb", "\x00", "\x1b[31m", "\u202egnp", "\u2028", "é", "日本", "\ud800", "a" * 300),
    *(r"$\xi$", r"\underline{a}", r"\input{x}", "<script>", "[/red]", "{{x}}", "%s", "a > b", "@"),
    *("-", "--", "a,b", '"', "'", "=1", "~", "*", "?", "#", ": [", "\ufeff", "0x10", "1_0", "1:30"),
)


def value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return draw.choice((None, True, False))
    if kind in (1, 2):
        return draw.choice(NUMBERS)
    if kind == 3:
        return draw.choice(REALS)
    if kind in (4, 5):
        return draw.choice(WORDS)
    inner = [value(draw, depth + 1) for _ in range(draw.choice((0, 1, 3, 40)))]
    return inner if kind < 8 else {draw.choice(WORDS): one for one in inner}


def mutated(given: Any, draw: random.Random) -> Any:
    """Change one place of nested mappings and lists, found by a random walk."""
    holder = given
    while isinstance(holder, dict | list) and holder:
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        place = draw.choice(places)
        inner = holder[place]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
            holder = inner
            continue
        how = draw.choice(("replace", "replace", "replace", "drop", "rename", "add"))
        if how == "drop":
            del holder[place]
        elif how == "replace" or isinstance(holder, list):
            holder[place] = value(draw)
        elif how == "rename":
            holder[draw.choice(WORDS)] = holder.pop(place)
        else:
            holder[draw.choice((*WORDS, *places))] = value(draw)
        break
    return given


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file as disks, programs and hostile hands do; say how."""
    content = path.read_bytes()
    how = draw.choice(
        "flip flip cut zero empty grow gone mark utf-16 list deep device pipe folder loop".split()
    )
    place = draw.randrange(max(1, len(content)))
    path.unlink()
    if how == "device":
        path.symlink_to("/dev/zero")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how != "gone":
        flipped = bytearray(content)
        for _ in range(draw.choice((1, 20)) if content else 0):
            flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        zeroed = content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]
        path.write_bytes(
            {
                "flip": bytes(flipped),
                "cut": content[:place],
                "zero": zeroed,
                "empty": b"",
                "grow": content + content[:place],
                "mark": b"\xef\xbb\xbf" + content,
                "utf-16": content.decode("latin1").encode("utf-16"),
                "list": b"[" * draw.choice((1, 50)) + b"]",
                "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            }[how]
        )
    return how


class Scene:
    """A folder of its own for each attack, with what is attacked in it."""

    def __init__(self, whole: Path, folder: Path, draw: random.Random) -> None:
        self.draw, self.folder, self.out = draw, folder, folder / "runs"
        shutil.copytree(whole, folder)
        self.runs = sorted(path.parent for path in self.out.glob("*/run.json"))
        self.study, self.image = self.out / "study", folder / "image.png"

    def commands_of_a_run(self, run: Path) -> list[str]:
        name = str(run)
        return self.draw.choice(
            (
                ["report", str(self.study)],
                ["report", str(self.study), "--json"],
                ["study", str(self.folder / "study.yaml"), "--out", str(self.out), "--dry-run"],
                ["evaluate", name],
                ["predict", name, str(self.image), "--json"],
                ["diagnose", name, "--first", "1", "--last", "2"],
                ["export", name, "--format", "safetensors"],
                ["study", "--verify", name],
                ["train", TINY_TEXT, "--data", "digits", "--out", str(self.out), *SETTINGS],
            )
        )


SETTINGS = "--set epochs=1 --set batch_size=20 --set data.train_images=60".split()
SETTINGS += "--set data.test_images=50 --threads 1".split()
Attack = tuple[str, Callable[[], Any]]  # what was done, and what is then called


def attack_files(scene: Scene) -> Attack:
    """Bytes of one file of a run's folder, or of the study's."""
    draw, run = scene.draw, scene.draw.choice(scene.runs)
    name = draw.choice((*RUN_FILES, "last.ckpt", "lock", "study.json", "diagnosis.json"))
    path = (scene.study if name == "study.json" else run) / name
    if draw.random() < 0.1:
        other = draw.choice(scene.runs)
        path.write_bytes((other / draw.choice(RUN_FILES)).read_bytes())
        how = "another's"
    else:
        how = damage(path, draw) if path.exists() else "none"
    return command(f"{name} {how}", scene.commands_of_a_run(run))


def attack_json(scene: Scene) -> Attack:
    """A value in a JSON file, its checksums made right again."""
    draw, run = scene.draw, scene.draw.choice(scene.runs)
    name = draw.choice(("run.json", "result.json", "log.jsonl", "study.json", "diagnosis.json"))
    path = (scene.study if name == "study.json" else run) / name
    if name == "log.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{json.dumps(one)}\n" for one in mutated(lines, draw)))
    else:
        content = json.loads(path.read_text())
        content.pop("sha256", None)
        with contextlib.suppress(Exception):  # half a character has no checksum
            write_checked_json(path, mutated(content, draw))
    if name in ("run.json", "log.jsonl"):
        result = json.loads((run / "result.json").read_text())
        kept = {key: one for key, one in result.items() if key not in ("files", "sha256")}
        write_result(run, kept)
    return command(f"value in {name}", scene.commands_of_a_run(run))


def attack_yaml(scene: Scene) -> Attack:
    """A value, or bytes, of a study's or a recipe's YAML file."""
    draw, path = scene.draw, scene.folder / "study.yaml"
    study = json.loads(json.dumps(STUDY))
    if draw.random() < 0.2:
        recipe = mutated(yaml.safe_load((scene.folder / "recipe.yaml").read_text()), draw)
        (scene.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), errors="replace")
        study["recipe"] = str(scene.folder / "recipe.yaml")
        what = "value in a recipe"
    else:
        for _ in range(draw.choice((1, 1, 3))):
            mutated(study, draw)
        what = "value in a study"
    path.write_text(yaml.safe_dump(study, sort_keys=False), errors="replace")
    if draw.random() < 0.2:
        what = f"YAML {damage(path, draw)}"
    return command(what, ["study", str(path), "--out", str(scene.out), "--dry-run"])


def attack_names(scene: Scene) -> Attack:
    """Names of rows, studies, claims and classes, as far as the page."""
    draw = scene.draw
    name = "".join(draw.choice(WORDS)[:40] for _ in range(draw.choice((1, 1, 2))))
    if draw.random() < 0.3:
        run = draw.choice(scene.runs)
        about = json.loads((run / "run.json").read_text())
        del about["sha256"]
        about["class_names"][draw.randrange(10)] = name
        about["label"] = name
        with contextlib.suppress(Exception):
            write_checked_json(run / "run.json", about)
        result = json.loads((run / "result.json").read_text())
        kept = {key: one for key, one in result.items() if key not in ("files", "sha256")}
        write_result(run, kept)
        return command(f"class {name!a}", scene.commands_of_a_run(run))
    study: dict[str, Any] = json.loads(json.dumps(STUDY))
    where = draw.choice(("row", "title", "notes", "description", "baseline", "file", "note"))
    path = scene.folder / "study.yaml"
    if where == "row":
        study["rows"][name] = study["rows"].pop("se")
        study["claims"] = [f"{name} > plain"] if draw.random() < 0.5 else []
    elif where == "note":
        study["rows"]["se"] = {"model": study["rows"]["se"], "note": name}
    elif where == "file":
        path = scene.folder / f"{name.replace('/', '_')}.yaml"
    else:
        study[where] = [name] if where == "notes" else name
    try:
        path.write_text(json.dumps(study, ensure_ascii=draw.random() < 0.5))
    except (OSError, ValueError):
        path = scene.folder / "study.yaml"
    return command(f"{where} {name!a}", ["study", str(path), "--out", str(scene.out)])


def attack_weights(scene: Scene) -> Attack:
    """A file of weights, damaged or made up."""
    draw = scene.draw
    path = scene.folder / draw.choice(("w.pth", "w.safetensors", "old.pth"))
    how = draw.choice(("damage", "damage", "tensors", "object", "bomb", "header"))
    state = torch.load(scene.folder / "w.pth", weights_only=True)
    if how == "tensors":
        name = draw.choice([name for name in state if state[name].is_floating_point()])
        state[name] = draw.choice(
            (
                torch.full_like(state[name], float("nan")),
                state[name].to_sparse(),
                torch.zeros(1).expand(10**9),
                torch.zeros(0),
                state[name].double() * 1e300,
                state[name].to(torch.complex64),
                state[name].to(torch.float8_e5m2),
                torch.empty(3, device="meta"),
                "text",
                None,
                {"a": state[name]},
            )
        )
        path = scene.folder / "w.pth"
        torch.save({draw.choice(("state_dict", "model", "x")): state}, path)
    elif how == "object":
        inner: dict[Any, Any] = {1: state} if draw.random() < 0.5 else {"state_dict": state}
        inner[draw.choice(("model", "state_dict", "self"))] = inner
        path = scene.folder / "w.pth"
        torch.save(inner if draw.random() < 0.7 else [inner], path)
    elif how == "bomb":
        path = scene.folder / "w.pth"
        whole = path.read_bytes()
        with (
            zipfile.ZipFile(io.BytesIO(whole)) as source,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
        ):
            for one in source.infolist():
                large = one.filename.endswith("/data/0") and draw.random() < 0.8
                target.writestr(one.filename, bytes(300 << 20) if large else source.read(one))
    elif how == "header":
        path = scene.folder / "w.safetensors"
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64]}})
        path.write_bytes(draw.choice((len(header), 2**60)).to_bytes(8, "little") + header.encode())
    else:
        how = damage(path, draw)
    if draw.random() < 0.3:
        run = scene.runs[0]
        kind = draw.choice(("last.ckpt", "model.safetensors"))
        (run / kind).unlink()
        shutil.copy(path, run / kind) if path.is_file() else None
        return command(f"{kind}: {path.name} {how}", scene.commands_of_a_run(run))
    return f"{path.name} {how}", lambda: load(path)


def load(path: Path) -> None:
    from blocklab.models.factory import create_model
    from blocklab.models.weights import load_weights

    load_weights(create_model(TINY_TEXT, num_classes=10), path)


def attack_options(scene: Scene) -> Attack:
    """A word or a number where the command line takes one."""
    draw, run, file = scene.draw, str(scene.runs[0]), str(scene.folder / "study.yaml")
    number, word = str(draw.choice(NUMBERS)), draw.choice(WORDS)
    odd = draw.choice((number, number, word))
    dry = ["study", file, "--out", str(scene.out), "--dry-run"]
    train = ["train", TINY_TEXT, "--data", "digits", "--out", str(scene.out), *SETTINGS]
    large = draw.choice((number, word, "1000000")) if number not in "15" else "x"
    settings = "epochs batch_size lr data.train_images data.image_size crop_padding cutout mixup"
    given = draw.choice(
        (
            [*dry, "--seeds", odd],
            [*dry, "--rows", word],
            [*dry, "--rows", f"plain{word}se"],
            [*dry, "--workers", odd],
            [*dry, "--threads", odd],
            [*dry, "--set", f"{draw.choice(settings.split())}={odd}"],
            [*dry, "--set", word],
            [*dry, "--data", word],
            [*dry, "--recipe", word],
            [*train, "--seed", number if number not in "15" else "x"],
            [*train, "--devices", number if number not in "15" else "x"],
            [*train, "--nodes", number if number not in "15" else "x"],
            ["describe", TINY_TEXT, "--input-size", odd],
            ["describe", TINY_TEXT, "--num-classes", odd],
            ["describe", f"resnet20:{word}"],
            ["describe", f"resnet20:widths=[{number}]"],
            ["describe", f"resnet20:depths=[{number},1,1]"],
            ["models", word],
            ["models", "resnet20", "--cost", "--input-size", odd],
            ["models", "resnet20", "--cost", "--num-classes", odd],
            ["bench", TINY_TEXT, "--input-size", large],
            ["bench", TINY_TEXT, "--batch-size", large],
            ["predict", run, str(scene.image), "--top", odd],
            ["predict", run, word],
            ["diagnose", run, "--first", odd],
            ["diagnose", run, "--last", odd],
            ["evaluate", run, "--data", word],
            ["evaluate", word],
            ["report", word],
            ["export", run, "--format", draw.choice((word, "hub")), "--to", str(scene.folder)],
            ["check", word],
            ["study", word],
            [word, odd],
        )
    )
    return command(" ".join(given), [part.replace("\x00", "") for part in given])


ATTACKS: dict[str, tuple[Callable[[Scene], Attack], int]] = {  # and how many of ten
    "bytes of run folders": (attack_files, 2),
    "values in run folders": (attack_json, 2),
    "YAML": (attack_yaml, 2),
    "names": (attack_names, 1),
    "weights": (attack_weights, 1),
    "options": (attack_options, 2),
}
TURNS = [kind for kind, (_, share) in ATTACKS.items() for _ in range(share)]


def command(what: str, arguments: list[str]) -> Attack:
    verb = " ".join(part for part in arguments[:2] if len(part) < 20)
    return f"{what}: {verb}", lambda: app.run(arguments)


def judged(call: Callable[[], Any]) -> tuple[str, str]:
    """Call; return held, refused or fault, and what was said."""
    from blocklab.errors import BlocklabError

    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = call() or 0
        except BlocklabError as error:
            status = error.exit_status
            print(f"error: {error}", file=sys.stderr)
        except BaseException:
            return "fault", traceback.format_exc()
    said = [line for line in err.getvalue().split("\n") if line.startswith("error: ")]
    last = said[-1] if said else ""
    whole = err.getvalue() + out.getvalue()
    if "a fault of blocklab's" in whole or "Traceback" in whole or "\x1b[31m" in whole:
        return "fault", whole[-3000:]
    if status == 0:
        return "held", last
    if status in (1, 2) and (len(said) == 1 or "left" in whole or "differ" in whole):
        return "refused", last
    if status == 1 and not said and out.getvalue().strip():  # a study or a comparison says it there
        return "refused", out.getvalue()[-300:]
    return "fault", f"status {status}: {whole[-3000:]}"


def attacker(whole: Path, seed: int, kinds: list[str], connection: Any) -> None:
    """Carry out attacks by number, one after another, and say what came of each."""
    os.environ.pop("BLOCKLAB_TRACEBACK", None)
    torch.set_num_threads(1)
    while (number := connection.recv()) is not None:
        kind = kinds[number % len(kinds)]
        draw = random.Random(f"{seed} {number} {kind}")
        with tempfile.TemporaryDirectory(prefix="blocklab-attack-") as name:
            os.chdir(name)
            what, call = ATTACKS[kind][0](Scene(whole, Path(name) / "scene", draw))
            connection.send(("begins", what))
            connection.send(judged(call))
            os.chdir("/")


def prepare(whole: Path) -> None:
    """Train the study that is attacked, and write weights, a recipe and an image beside it."""
    out = whole / "runs"
    os.environ[KEEP_VARIABLE] = "1"  # so that checkpoints are there to be attacked
    study = Study.parse(STUDY, "study")
    for run in study.plan():
        execute_run(run.definition, out, threads=1)
    train_studies.train_studies((study,), out, threads=1)
    runs = [path.parent for path in out.glob("*/run.json")]
    for run in runs:
        diagnosis = ["diagnose", str(run), "--first", "1", "--last", "1"]
        assert judged(lambda given=diagnosis: app.run(given))[0] == "held"
    (whole / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    (whole / "recipe.yaml").write_text(yaml.safe_dump(study.recipe.model_dump(mode="json")))
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(whole / "image.png")
    from blocklab.training.run_reader import RunReader

    weights = RunReader(runs[0]).weights()
    torch.save(weights, whole / "w.pth")
    torch.save(weights, whole / "old.pth", _use_new_zipfile_serialization=False)
    shutil.copy(runs[0] / "model.safetensors", whole / "w.safetensors")


class Watched:
    """The child that attacks: another takes its place when it dies or is ended."""

    def __init__(self, whole: Path, seed: int, kinds: list[str]) -> None:
        self.context: Any = multiprocessing.get_context("fork")
        self.given = whole, seed, kinds
        self.process: Any = None

    def attack(self, number: int) -> tuple[str, str, str]:
        """Return held, refused or fault; what was done; what was said."""
        if self.process is None:
            self.connection, theirs = self.context.Pipe()
            self.process = self.context.Process(target=attacker, args=(*self.given, theirs))
            self.process.start()
            theirs.close()
        self.connection.send(number)
        what, ended, before = "", time.monotonic() + BOUND_SECONDS, resident(self.process.pid)
        why = f"over {BOUND_SECONDS:.0f} s"
        while time.monotonic() < ended:
            try:
                if self.connection.poll(0.02):
                    answer = self.connection.recv()
                    if answer[0] != "begins":
                        return answer[0], what, answer[1]
                    what = answer[1]
            except (EOFError, OSError):
                self.process.join()
                code, self.process = self.process.exitcode, None
                return "fault", what, f"its process ended with {code}"
            if resident(self.process.pid) - before > BOUND_BYTES:
                why = f"over {BOUND_BYTES >> 30} GB more memory"
                break
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.process = None
        return "fault", what, why


def resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--attacks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(ATTACKS))
    parser.add_argument("--number", type=int, help="this attack alone, and what was said")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    kinds, began = [given.only] if given.only else TURNS, time.monotonic()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="blocklab-attacks-") as name:
        whole = Path(name) / "whole"
        trainer = multiprocessing.get_context("fork").Process(target=prepare, args=(whole,))
        trainer.start()
        trainer.join()
        assert trainer.exitcode == 0, "what is to be attacked was not made"
        watched = Watched(whole, given.seed, kinds)
        for number in range(given.attacks) if given.number is None else [given.number]:
            at = time.monotonic()
            outcome, what, said = watched.attack(number)
            counts[kinds[number % len(kinds)]][outcome] += 1
            if outcome == "fault" or given.number is not None:
                seconds = time.monotonic() - at
                print(f"{number}: {outcome}: {what} ({seconds:.1f} s)\n{said}", file=sys.stderr)
        if watched.process is not None:
            watched.connection.send(None)
            watched.process.join()
    total = sum(counts.values(), Counter())
    lines = {**counts, "in all": total}
    seconds = time.monotonic() - began
    if given.json:
        print(json.dumps({**lines, "seconds": round(seconds)}))
    else:
        print("| attacked | held | refused | fault |\n|---|---|---|---|")
        for kind, of in lines.items():
            print(f"| {kind} | {of['held']} | {of['refused']} | {of['fault']} |")
        print(f"\nseed {given.seed}, {seconds:,.0f} seconds")
    return 1 if total["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
