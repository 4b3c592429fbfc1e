"""Images that cannot be used, found before work begins: an hour must not end at the last file of a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from segda.data.sets.dataset import DataSet
from segda.data.stream.augment import size_of
from segda.distributed import group
from segda.errors import DataError
from segda.evaluation.inference import Settings, Size, sizes_shown
from segda.evaluation.look import Images, ahead
from segda.ground.progress import track
from segda.scene import Scene

log = logging.getLogger(__name__)

NAMED = 20
"""Faults that are said one by one."""


def faults(images: Images, check: Callable[[int, Scene], None], title: str, label: bool = False) -> dict[int, str]:
    """What is wrong with each image that cannot be used, by its number. All are read; `check` refuses one by a
    DataError. Several processes share them, and each has all faults.
    """

    def fault(i: int) -> str:
        try:
            check(i, images.read(i, label=label))
        except DataError as error:
            return str(error)
        return ""

    def own() -> list[tuple[int, str]]:
        numbers = range(group.rank(), len(images), group.world())
        every = zip(track(numbers, title), ahead(fault, numbers), strict=True)
        return [(i, said) for i, said in every if said]

    found = group.all_gather_object(group.all_succeed(own))
    return dict(sorted((i, said) for part in found for i, said in part))


def refuse(found: Mapping[int, str], names: Sequence[str], way: str) -> None:
    """DataError where there are faults, that names all of them; several are said one by one before. names: of each
    image. way: the way out besides mending them.
    """
    if not found:
        return
    if len(found) == 1:
        raise DataError(f"{next(iter(found.values()))}{f', or {way}' if way else ''}")
    tell(found)
    listed = ", ".join(names[i] for i in list(found)[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise DataError(
        f"{len(found)} of {len(names)} images cannot be used: {listed}{more}; mend them{f', or {way}' if way else ''}"
    )


def tell(found: Mapping[int, str]) -> None:
    """Says what is wrong with each, NAMED of them."""
    for said in list(found.values())[:NAMED]:
        log.warning(said)


def refuse_too_small(where: str, size: Size, network: object, settings: Settings) -> None:
    """DataError for an image that the network would be shown at a size below what it needs. size: (height, width)."""
    needed = getattr(network, "smallest", 1)
    for height, width in sizes_shown(size, settings):
        if min(height, width) < needed:
            way = "cut it into pieces" if max(size) >= needed else "enlarge it"
            raise DataError(
                f"{where}: is {size[1]}x{size[0]} and would be shown to the network at {width}x{height} "
                f"(the recipe's evaluate.resize and shape), which needs {needed} on each side; {way}"
            )


def refuse_bad(datasets: Sequence[DataSet], networks: Iterable[object] = (), settings: Settings | None = None) -> None:
    """DataError for images and labels of files that cannot be measured on, of all data sets at once: damaged ones, and
    those too small for one of the networks.
    """
    every: dict[int, str] = {}
    names: list[str] = []
    for data in datasets:

        def check(i: int, scene: Scene, data: DataSet = data) -> None:
            for network in networks:
                assert settings is not None
                refuse_too_small(data.place(i), size_of(scene), network, settings)

        if data.image_path(0) is not None:  # drawn ones cannot be damaged
            found = faults(data, check, f"looking at {data.spec}", label=True)
            every |= {len(names) + i: said for i, said in found.items()}
            names += [data.place(i) for i in range(len(data))]
    group.on_rank_zero(refuse, every, names, "")
