"""The figures that `blocklab figure` draws, by name, and where their files are written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from blocklab.data.given_images import Given
from blocklab.errors import InputError, check_choice
from blocklab.measure.activations import Diagnosis
from blocklab.models.probe import ImageSize, size_text
from blocklab.report.curves import CURVES, learning_rate, over_epochs
from blocklab.report.drawing import ON_PAPER, Figure, svg, titled
from blocklab.report.figures import write_figure
from blocklab.report.receptive import receptive_field_figure
from blocklab.report.run_pictures import OnFault, Subject, all_pictures
from blocklab.results.ended_run import EndedRun, read_ended_run
from blocklab.results.named_run import find_run
from blocklab.results.row_result import RowResult
from blocklab.results.study_file import STUDY
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults
from blocklab.study.folder_name import safe_name
from blocklab.study.schema import study_names
from blocklab.study.study import Study
from blocklab.training.finished import FinishedRun
from blocklab.training.recipe import Recipe, load_recipe
from blocklab.training.run_reader import RunReader

PICTURES = "pictures"  # the folder, in a study's or a run's
OF_NETWORKS = ("receptive_field", "kernels", "dead_neurons", "grad_cam", "attention")
NAMES = (*OF_NETWORKS, "learning_rate", "accuracy")
# Of what may be said besides, what each shows.
_TAKES = {
    "receptive_field": {"input_size"},
    "kernels": {"layer", "input_size"},
    "dead_neurons": {"input_size"},
    "grad_cam": {"images", "layer"},
    "attention": {"images"},
}
# The report's own, by their numbers: what is drawn, of which study.
OF_THE_REPORT = {
    "figure_35": ("learning_rate", "figure_35"),
    "figure_36": ("accuracy", "figure_36"),
    "figure_37": ("accuracy", "figure_37"),
}


class Place(NamedTuple):
    """Where pictures lie, and how the names of their files begin: there, and in other folders."""

    folder: Path
    prefix: str
    elsewhere: str


@dataclass(frozen=True)
class Drawn:
    """Figures, and where their files lie."""

    figures: tuple[Figure, ...]
    place: Place
    notes: tuple[str, ...] = ()  # which runs are not in them, and why

    def _repr_html_(self) -> str:
        """Show them, in a notebook."""
        return "".join(f"<div>{svg(titled(one), ON_PAPER)}</div>" for one in self.figures)

    def write(self, folder: Path | None = None) -> list[Path]:
        """Write each as SVG and PNG; return the paths.

        Raises:
            InputError: if `folder` is a file.
            RunError: if the folder cannot be written.
        """
        into = self.place.folder if folder is None else folder
        prefix = self.place.prefix if folder is None else self.place.elsewhere
        if into.exists() and not into.is_dir():
            raise InputError(f"{into} is a file; name a folder for the pictures")
        return [
            path
            for figure in self.figures
            for path in write_figure(titled(figure), into, f"{prefix}{figure.name}")
        ]


def draw(
    name: str,
    subjects: Sequence[str],
    images: Sequence[Given] = (),
    *,
    layer: str | None = None,
    input_size: ImageSize | None = None,
    out: Path = Path("runs"),
    on_fault: OnFault | None = None,
) -> Drawn:
    """Draw the figure of that name.

    Args:
        name: one of `NAMES`, or of `OF_THE_REPORT`.
        subjects: what it is of: runs or models; of learning rates recipes, studies and runs; of
            accuracies a study's folder or runs.
        images: to look at; by default test images that tell most.
        layer: of the network, for kernels and Grad-CAM.
        input_size: of a model, for receptive fields, kernels and dead neurons.
        out: where the folders of the report's studies lie.
        on_fault: is told of an image that cannot be read, and the others are shown.

    Raises:
        InputError: if the name or a subject is unknown, or cannot be drawn so.
        RunError: if a file of a run is damaged.
    """
    if name in OF_THE_REPORT and not subjects:
        name, of = OF_THE_REPORT[name]
        folder = out / of
        if name == "accuracy" and not (folder / STUDY).exists():
            raise InputError(f"{of} has not run in {out}; `blocklab study {of}` trains it")
        subjects = [str(folder) if (folder / STUDY).exists() else of]
    check_choice("figure", name, (*NAMES, *OF_THE_REPORT))
    if not subjects:
        raise InputError(
            f"{name} of what? Name a run (its folder, or STUDY_DIR/ROW:SEED){_OR[name]}"
        )
    said = {"images": bool(images), "layer": layer is not None, "input_size": bool(input_size)}
    for option in (option for option, given in said.items() if given):
        if option not in _TAKES.get(name, ()):
            takers = ", ".join(figure for figure in _TAKES if option in _TAKES[figure])
            raise InputError(f"{name} shows no other {option}; leave it out ({takers}: they do)")
    place = _place(subjects)
    if name == "learning_rate":
        return Drawn(_rates(subjects), place)
    if name == "accuracy":
        figures, notes = _accuracies(subjects)
        return Drawn(figures, place, notes)
    opened = [Subject.open(named, input_size=input_size) for named in subjects]
    if input_size is not None and all(one.run for one in opened):
        raise InputError("a run has an input size of its own; leave input_size out")
    # What else is asked for stands in a file's name, too: other sizes, layers and images of the
    # same network are other pictures.
    asked = [] if input_size is None else [size_text(input_size)]
    if name == "receptive_field":
        fields = [field for one in opened for field in one.fields()]
        return Drawn((_named_after(receptive_field_figure(fields), asked),), place)
    if len(opened) > 1:
        raise InputError(f"{name} is of one network; name one, not {len(opened)}")
    (one,) = opened
    figure = {
        "kernels": lambda: one.kernels(layer),
        "dead_neurons": one.dead_neurons,
        "grad_cam": lambda: one.grad_cam(images, layer, on_fault),
        "attention": lambda: one.attention(images, on_fault),
    }[name]()
    asked += [] if layer is None else [layer]
    asked += [Path(image).stem for image in images if isinstance(image, str | Path)]
    return Drawn((_named_after(figure, asked),), place)


def draw_all(
    named: str | Path, run: FinishedRun, diagnosis: Diagnosis | None = None
) -> tuple[Drawn, list[str]]:
    """Draw whatever of a run's network can be drawn, and say in a line each what cannot."""
    figures, missing = all_pictures(Subject.of(run), diagnosis)
    return Drawn(tuple(figures), place_of(str(named))), missing


_OR = dict.fromkeys(NAMES, " or a model") | {
    "learning_rate": ", a recipe or a study",
    "accuracy": " or a study's folder",
    "grad_cam": "",
    "attention": "",
}


def place_of(named: str) -> Place:
    """Return the folder of a subject's pictures, and how the names of their files begin.

    A row of a study has ``STUDY/pictures/ROW-SEED-``, a folder ``FOLDER/pictures/``, and what is
    neither, such as a model, ``pictures/NAME-``. In another folder the study's name stands before.
    """
    path = Path(named)
    if path.is_dir():
        return Place(path / PICTURES, "", f"{safe_name(path.resolve().name)}-")
    before, colon, seed = named.rpartition(":")
    for folder in path.parents:
        if colon and (folder / STUDY).exists():
            row = before if folder == Path() else before.removeprefix(str(folder)).lstrip("/\\")
            prefix = f"{safe_name(row)}-{seed}-"
            study = safe_name(folder.resolve().name)
            return Place(folder / PICTURES, prefix, f"{study}-{prefix}")
    return Place(Path(PICTURES), *[f"{safe_name(named)}-"] * 2)


def _place(subjects: Sequence[str]) -> Place:
    """Return the place of a figure of several, whose files are named after all of them."""
    places = list(dict.fromkeys(map(place_of, subjects)))
    if len(places) == 1:
        return places[0]
    elsewhere = _joined([place.elsewhere for place in places])
    if len({place.folder for place in places}) > 1:
        return Place(Path(PICTURES), elsewhere, elsewhere)
    return Place(places[0].folder, _joined([place.prefix for place in places]), elsewhere)


def _joined(prefixes: Sequence[str]) -> str:
    return safe_name("+".join(prefix.rstrip("-") for prefix in prefixes)) + "-"


def _named_after(figure: Figure, asked: Sequence[str]) -> Figure:
    if not asked:
        return figure
    return replace(figure, name=f"{figure.name}-{safe_name('+'.join(asked))}")


def _rates(subjects: Sequence[str]) -> tuple[Figure, ...]:
    if len(subjects) > 1:
        raise InputError(f"learning_rate is of one recipe, study or run, not {len(subjects)}")
    results = _rates_of(subjects[0])
    figures = (
        learning_rate(results, "learning_rate"),
        learning_rate(results, "learning_rate_by_step", by_step=True),
    )
    return tuple(figure for figure in figures if figure is not None)


def _rates_of(named: str) -> StudyResults:
    """Return results as far as learning rates go by them: a recipe, and runs where there are."""
    path = Path(named)
    if (path / STUDY).exists():
        return read_study_folder(path)
    folder = find_run(named)
    if folder.is_dir():
        return _of_runs([_ended(folder)])
    if named in study_names():
        study = Study.load(named)
        return _of_recipe(study.recipe, study.recipe_name)
    return _of_recipe(load_recipe(named), path.stem)


def _accuracies(subjects: Sequence[str]) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    if len(subjects) == 1 and (Path(subjects[0]) / STUDY).exists():
        results = read_study_folder(Path(subjects[0]))
    else:
        results = _of_runs([_ended(find_run(named)) for named in subjects])
    figures = (over_epochs(results, curve) for curve in CURVES if curve.percent)
    found = tuple(figure for figure in figures if figure is not None)
    if not found:
        raise InputError("no accuracies to draw: no run has ended that recorded any by epoch")
    return found, tuple(f"{row}: {line}" for row, line in results.troubles)


def _ended(folder: Path) -> EndedRun:
    reader = RunReader(folder)
    reader.require_result()
    run = read_ended_run(reader)
    assert run is not None, "it has a result"
    return run


def _of_runs(runs: Sequence[EndedRun]) -> StudyResults:
    recipe = Recipe.parse(runs[0].run["definition"]["recipe"])
    by_label: dict[str, dict[int, EndedRun]] = {}
    for run in runs:
        by_label.setdefault(run.run["label"] or run.hash, {})[run.seed] = run
    rows = [
        RowResult(label, {}, 0, 0, 0, tuple(seeds.values()), tuple(seeds))
        for label, seeds in by_label.items()
    ]
    return _of_recipe(recipe, "of the run", tuple(rows))


def _of_recipe(recipe: Recipe, name: str, rows: tuple[RowResult, ...] = ()) -> StudyResults:
    return StudyResults(
        title=name,
        description="",
        data={},
        recipe=recipe.model_dump(mode="json"),
        recipe_name=name,
        seeds=(),
        varies=(),
        baseline=None,
        rows=rows,
    )
