"""A block's steps made ready to draw: a row of them in one box, branches alike in one."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from block_trace import PLUS, TIMES, Traced

_LONGEST_LINE = 32
_MOST_BRANCHES = 3  # between the same two boxes, that are drawn side by side


@dataclass
class Box:
    """Some steps in a row, or a sign where maps meet.

    Attributes:
        lines: what is done, in order.
        shape: of what comes out.
        parents: the boxes that it takes maps of.
        is_sign: whether maps are added or multiplied here.
        times: how many branches alike it stands for.
        branches: how many branches its lines are; 1 where they follow one another.
    """

    lines: list[str]
    shape: str
    parents: list[int] = field(default_factory=list)
    is_sign: bool = False
    times: int = 1
    branches: int = 1

    @property
    def heading(self) -> list[str]:
        """What stands above the lines, if anything."""
        if self.branches > 1:
            return [f"{self.branches} branches:"]
        return [f"{self.times} times:"] if self.times > 1 else []


Graph = dict[int, Box]


def boxes(steps: list[Traced]) -> Graph:
    """Return the boxes of a block by number, each after its parents; the first is its input."""
    graph = {
        number: Box([step.text], step.shape, list(step.inputs), step.is_sign)
        for number, step in enumerate(steps)
    }
    _without_dead_ends(graph)
    for join in (_join_signs, _join_rows, _join_branches, _join_many_branches, _join_rows):
        while join(graph):
            pass
    return graph


def children(graph: Graph) -> dict[int, list[int]]:
    """Return which boxes take each box's map."""
    taken: dict[int, list[int]] = {number: [] for number in graph}
    for number, box in graph.items():
        for parent in box.parents:
            taken[parent].append(number)
    return taken


def in_words(graph: Graph) -> Iterator[str]:
    """Say each box in a sentence, for who does not see the drawing."""
    names = dict(zip(graph, ["x", *(f"({n})" for n in range(1, len(graph) - 1)), "y"], strict=True))
    for number, box in graph.items():
        given = [names[parent] for parent in box.parents]
        if not given:
            continue
        if box.is_sign:
            what = f" {box.lines[0]} ".join(given)
        elif names[number] == "y":
            what = f"the output is {given[0]}"
        else:
            what = f"{' '.join([*box.heading, ', '.join(box.lines)])}, of {' and '.join(given)}"
        yield f"{what}: {box.shape}"


def _without_dead_ends(graph: Graph) -> None:
    last, used = max(graph), set[int]()
    waiting = [last]
    while waiting:
        number = waiting.pop()
        if number not in used:
            used.add(number)
            waiting += graph[number].parents
    for number in set(graph) - used - {0}:
        del graph[number]


def _join_signs(graph: Graph) -> bool:
    """Make one sign of a sum of sums, and of a product of products."""
    taken = children(graph)
    for box in graph.values():
        for place, parent in enumerate(box.parents):
            inner = graph[parent]
            alike = box.is_sign and inner.lines == box.lines and box.lines[0] in (PLUS, TIMES)
            if alike and len(taken[parent]) == 1:
                box.parents[place : place + 1] = inner.parents
                del graph[parent]
                return True
    return False


def _join_rows(graph: Graph) -> bool:
    """Put a box into the one before it, where nothing else goes out of that or into this."""
    taken, ends = children(graph), (min(graph), max(graph))
    for number, box in graph.items():
        if box.is_sign or number in ends or len(box.parents) != 1:
            continue
        before = graph[box.parents[0]]
        joined = before.is_sign or box.parents[0] in ends or len(taken[box.parents[0]]) != 1
        if joined or before.times != box.times or max(before.branches, box.branches) > 1:
            continue
        for line in box.lines:
            one = f"{before.lines[-1]} · {line}"
            if " " not in line and "→" not in line and len(one) <= _LONGEST_LINE:
                before.lines[-1] = one
            else:
                before.lines.append(line)
        before.shape = box.shape
        _replace(graph, number, box.parents[0])
        return True
    return False


def _join_branches(graph: Graph) -> bool:
    """Put branches alike, from the same boxes into the same, into one that says how many."""
    taken, seen = children(graph), dict[object, int]()
    for number, box in graph.items():
        ways = tuple(sorted(box.parents)), tuple(sorted(taken[number]))
        first = seen.setdefault((tuple(box.lines), ways, box.shape), number)
        if first != number and not box.is_sign and len(box.parents) == 1:
            graph[first].times += box.times
            _replace(graph, number, first)
            return True
    return False


def _join_many_branches(graph: Graph) -> bool:
    """Put more branches than fit side by side, from one box into one other, into one that lists."""
    taken, ways = children(graph), dict[object, list[int]]()
    for number, box in graph.items():
        if not box.is_sign and len(box.parents) == len(taken[number]) == 1:
            ways.setdefault((box.parents[0], taken[number][0], box.shape), []).append(number)
    for branches in ways.values():
        if len(branches) > _MOST_BRANCHES:
            first, *others = branches
            graph[first].lines = [" · ".join(graph[number].lines) for number in branches]
            graph[first].branches = len(branches)
            for number in others:
                _replace(graph, number, first)
            return True
    return False


def _replace(graph: Graph, number: int, by: int) -> None:
    del graph[number]
    for box in graph.values():
        parents = [by if parent == number else parent for parent in box.parents]
        box.parents = list(dict.fromkeys(parents))
