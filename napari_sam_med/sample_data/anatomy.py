"""An abdomen in millimetres: what lies where, and how bright it is on a contrast-enhanced CT.

Invented from textbook proportions, not from any patient. LPS mm, the origin in the middle of the scan, near
the first lumbar vertebra. Later tissues are painted over earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_sam_med.sample_data.shapes import Array, Cut, Ellipsoid, Point, Shape, Tube, Union

__all__ = ["Layered", "Tissue", "body_and_wall", "tissues"]


@dataclass(frozen=True)
class Tissue:
    """A shape, its Hounsfield value and its class (0: no organ of the table).

    ``shells`` are (depth mm, HU): the value from that depth below the surface inwards. ``air_above_y`` fills
    the part in front of that y with air, as in the bowel of a patient lying on the back. ``grain`` scales
    a coarse texture, HU. Tissues that are not ``in_wall`` end where the cavity does.
    """

    shape: Shape
    hounsfield: float
    class_id: int = 0
    shells: tuple[tuple[float, float], ...] = ()
    air_above_y: float | None = None
    grain: float = 0.0
    in_wall: bool = False


@dataclass(frozen=True)
class Layered:
    """Body outline, wall and spaces, as nested distances in mm."""

    skin: Array
    muscle: Array
    cavity: Array
    lung: Array


_BODY = Ellipsoid((0, -2, 0), (140, 98, 4000), power=2.35)
_MUSCLE = Ellipsoid((0, 2, 0), (123, 82, 4000), power=2.3)
_CAVITY = Ellipsoid((0, -4, 0), (110, 70, 4000), power=2.2)
_MEDIASTINUM = Ellipsoid((6, 14, 0), (27, 40, 4000))


def body_and_wall(x: Array, y: Array, z: Array) -> Layered:
    """Distances of the points to skin, muscle wall, cavity and lung bases."""
    waist = np.asarray(
        1 + 0.03 * np.tanh((z + 30) / 60), dtype=np.float32
    )  # a little narrower towards the pelvis
    skin = _BODY.distance(x / waist, y / waist, z) + 4 * np.exp(-((x / 16) ** 2)) * (y > 0)
    muscle = _MUSCLE.distance(x / waist, y / waist, z)
    cavity = _CAVITY.distance(x / waist, y / waist, z)
    depth = np.maximum(-cavity, 0)
    dome = 40 + 74 * (1 - np.exp(-depth / 15)) - 12 * np.clip(y / 60, -1, 1)
    lung = np.maximum(cavity + 2, dome - z)
    return Layered(skin, muscle, cavity, np.maximum(lung, -_MEDIASTINUM.distance(x, y, z)))


LIVER = Cut(
    Union(
        [
            Ellipsoid((-56, -2, 34), (57, 62, 60), (0, 12, 10), 2.3),
            Ellipsoid((-70, 6, -18), (38, 48, 52), (0, 8, 0)),
            Ellipsoid((-8, -40, 50), (62, 26, 36), (0, -14, 8)),
        ],
        14,
    ),
    [
        Ellipsoid((-22, 20, -24), (46, 46, 56), (0, -18, 0)),
        Ellipsoid((22, 34, 40), (44, 40, 80)),
        Ellipsoid((-60, 34, -30), (30, 29, 57), (8, 9, -24), 2.2),
        Tube([(-10, -72, 30), (-18, -30, 26)], [7, 2]),
    ],
)
GALLBLADDER = Union(
    [Ellipsoid((-50, -46, -14), (15, 17, 17)), Tube([(-50, -46, -12), (-38, -28, 8)], [11, 4])], 5
)
SPLEEN = Cut(
    Ellipsoid((82, 28, 38), (33, 46, 52), (-18, -10, -24), 2.3),
    [Ellipsoid((44, 12, 34), (33, 32, 52)), Ellipsoid((60, 32, -18), (29, 27, 57), (8, -9, 24), 2.2)],
    2,
)
STOMACH = Union(
    [
        Ellipsoid((50, -4, 60), (33, 36, 32), (20, 0, 0)),
        Tube(
            [(48, -16, 56), (52, -36, 26), (40, -46, 0), (14, -44, -12), (-14, -40, -6), (-28, -30, 2)],
            [28, 25, 20, 15, 12, 9],
        ),
    ],
    10,
)
PANCREAS = Union(
    [
        Ellipsoid((-20, -10, -16), (14, 12, 19), (10, 0, 10)),
        Tube([(-16, -14, -6), (2, -20, 6), (24, -14, 12), (44, -1, 22), (64, 8, 32)], [11, 8, 9, 9, 7]),
    ],
    6,
)
_VEIN = [(-2, -6, 0), (22, 0, 8), (44, 8, 18), (62, 15, 28), (74, 18, 38)]
PORTAL = Union(
    [
        Tube([(-2, -6, -4), (-16, -8, 14), (-32, -10, 30), (-50, -8, 36)], [7, 7, 7, 5]),
        Tube(_VEIN, [6, 5, 5, 4.5, 4]),
    ],
    3,
)
AORTA = Union(
    [
        Tube([(18, 18, 110), (13, 15, 40), (8, 12, -30), (6, 10, -76)], [12, 11.5, 10, 9]),
        Tube([(6, 10, -74), (18, 12, -112)], [8, 6]),
        Tube([(6, 10, -74), (-7, 12, -112)], [8, 6]),
    ],
    3,
)
IVC = Tube(
    [(-20, 16, -112), (-22, 14, -40), (-24, 10, 20), (-26, -2, 70), (-22, -10, 110)], [10, 11, 11, 12, 13]
)
ESOPHAGUS = Tube([(4, 4, 112), (9, -2, 84), (20, -8, 66), (30, -10, 60)], [8, 8, 7.5, 7])


def _adrenal(side: float, centre: Point) -> Shape:
    cx, cy, cz = centre
    return Union(
        [
            Ellipsoid((cx, cy, cz), (3.0, 9, 14), (0, 0, side * 12)),
            Ellipsoid((cx + side * 4, cy + 9, cz - 2), (3.0, 10, 12), (0, 0, -side * 26)),
            Ellipsoid((cx - side * 3, cy + 9, cz - 2), (2.8, 9, 11), (0, 0, side * 18)),
        ],
        2,
    )


def _kidney(side: float, centre: Point, class_id: int) -> list[Tissue]:
    cx, cy, cz = centre
    hilum = (cx - side * 22, cy - 4, cz - 3)
    whole = Ellipsoid(centre, (27, 25, 53), (8, side * -9, side * 24), 2.2)
    sinus = Union(
        [Ellipsoid((cx - side * 10, cy - 2, cz - 2), (13, 9, 24)), Tube([centre, hilum], [7, 11])], 4
    )
    parenchyma = Cut(whole, [sinus])
    tissues = [
        Tissue(whole, -70),
        Tissue(parenchyma, 195, class_id, shells=((6.5, 150),), grain=8),
    ]
    for k, lift in enumerate((-24, -8, 10, 25)):
        pyramid = Ellipsoid((cx + side * 3, cy - 4 + 5 * (k % 2), cz + lift), (9, 7, 6), (0, 0, side * 20))
        tissues.append(Tissue(Cut(pyramid, [sinus]), 115, class_id))
    pelvis = Union(
        [
            Ellipsoid((cx - side * 13, cy - 2, cz - 3), (7, 5, 13)),
            Tube([hilum, hilum_end(side, hilum)], [5, 3]),
        ],
        3,
    )
    return [*tissues, Tissue(pelvis, 12)]


def hilum_end(side: float, hilum: Point) -> Point:
    """Where the ureter is lost from sight, LPS mm."""
    return (hilum[0] - side * 7, hilum[1] - 3, hilum[2] - 52)


def _spine() -> list[Tissue]:
    parts: list[Tissue] = [Tissue(Ellipsoid((0, 44, 0), (21, 15.5, 4000), power=2.4), 85, in_wall=True)]
    for z in range(-128, 129, 32):
        body = Ellipsoid((0, 44, z), (22.5, 17, 13.5), power=4.5)
        parts += [Tissue(body, 620, shells=((1.8, 190),), grain=25, in_wall=True)]
        arch: list[Shape] = [
            Tube([(-14, 56, z + 2), (-15, 64, z - 2), (0, 76, z - 8)], [5.5, 5, 4]),
            Tube([(14, 56, z + 2), (15, 64, z - 2), (0, 76, z - 8)], [5.5, 5, 4]),
            Tube([(0, 76, z - 8), (0, 88, z - 12)], [4, 4.5]),
            Tube([(-15, 60, z), (-40, 62, z + 2)], [5, 3.5]),
            Tube([(15, 60, z), (40, 62, z + 2)], [5, 3.5]),
        ]
        parts += [Tissue(Union(arch, 3), 560, shells=((1.8, 230),), in_wall=True)]
    canal = Ellipsoid((0, 63.5, 0), (10, 8, 4000))
    return [
        *parts,
        Tissue(canal, -20, in_wall=True),
        Tissue(Ellipsoid((0, 64, 0), (7, 6, 4000)), 38, in_wall=True),
    ]


def _ribs() -> list[Tissue]:
    ribs: list[Tissue] = []
    for k, top in enumerate((168, 142, 116, 90, 62, 34)):
        reach = (2.55, 2.55, 2.5, 2.35, 1.7, 1.1)[k]  # radians from the spine; the last two ribs float
        angles = np.linspace(0.42, reach, 14)
        for side in (-1.0, 1.0):
            path = [
                (
                    float(side * 116 * abs(np.sin(a)) ** 0.9),
                    float(4 + 75 * np.sign(np.cos(a)) * abs(np.cos(a)) ** 0.9),
                    float(top - 46 * (a - 0.42)),
                )
                for a in angles
            ]
            ribs.append(Tissue(Tube(path, [4.6] * len(path)), 520, shells=((1.6, 210),), in_wall=True))
    return ribs


def _muscles() -> list[Tissue]:
    parts: list[Tissue] = []
    for side in (-1.0, 1.0):
        psoas = Tube([(side * 22, 44, 30), (side * 36, 42, -40), (side * 44, 34, -110)], [5, 15, 21])
        parts += [
            Tissue(psoas, 62, grain=8, in_wall=True),
            Tissue(Ellipsoid((side * 30, 73, 0), (25, 15, 4000), power=2.6), 60, grain=12, in_wall=True),
            Tissue(
                Ellipsoid((side * 60, 58, -70), (16, 8, 90), (0, 0, side * -20)), 60, grain=8, in_wall=True
            ),
            Tissue(
                Tube([(side * 14, 27, 60), (side * 12, 28, -30)], [6, 3]), 58, in_wall=True
            ),  # crura of the diaphragm
        ]
    return parts


def _bowel() -> list[Tissue]:
    colon = [
        (Tube([(-88, 14, -112), (-86, 8, -74), (-74, -14, -62)], [23, 22, 17]), -12.0),
        (
            Tube(
                [(-74, -20, -64), (-40, -50, -60), (0, -55, -66), (40, -52, -52), (74, -20, -24)],
                [16, 15, 14, 15, 13],
            ),
            -54.0,
        ),
        (Tube([(80, -8, -20), (92, 12, -50), (94, 14, -112)], [13, 14, 15]), 4.0),
    ]
    parts = [Tissue(tube, 65, shells=((2.6, 15),), air_above_y=level, grain=90) for tube, level in colon]
    loops: list[list[Point]] = [
        [(-44, -8, -78), (-20, -22, -84), (8, -12, -92), (30, -26, -86), (54, -14, -82)],
        [(60, -30, -60), (38, -14, -56), (56, 4, -66), (66, -16, -84)],
        [(-46, -30, -98), (-16, -38, -102), (18, -34, -106), (50, -38, -100)],
        [(-30, 6, -8), (-40, 2, -28), (-34, 4, -48), (-8, 2, -56), (22, -2, -48), (40, -22, -40)],  # duodenum
        [(20, -24, -34), (44, -34, -34), (64, -36, -44), (52, -40, -70)],
    ]
    tubes = [Tube(points, [11.5] * len(points)) for points in loops]
    return [*parts, *(Tissue(tube, 105, shells=((2.4, 28),), grain=14) for tube in tubes)]


def _liver_vessels() -> list[Tissue]:
    hepatic = [
        Tube([(-26, -4, 76), (-48, -14, 66), (-78, -28, 44)], [6, 4.5, 2]),
        Tube([(-26, -4, 76), (-60, 16, 60), (-84, 30, 30)], [6, 4.5, 2]),
        Tube([(-26, -4, 76), (-14, -30, 66), (10, -46, 54)], [5, 4, 2]),
        Tube([(-50, -8, 36), (-76, 4, 22), (-86, 18, -8)], [5, 3.5, 2]),
        Tube([(-46, -8, 34), (-30, -36, 44), (-4, -46, 48)], [5, 3.5, 2]),
        Tube([(-60, -2, 30), (-72, -30, 14)], [4, 2]),
    ]
    return [Tissue(tube, 158) for tube in hepatic]


def tissues() -> list[Tissue]:
    """Everything inside the wall, in the order of painting."""
    mesentery = [
        Tube([(-2, -6, -2), (2, -12, -60), (-6, -16, -100)], [6, 5, 3]),
        Tube([(10, 2, -2), (12, -10, -60), (14, -18, -96)], [3.5, 3, 2]),
        Tube([(9, 4, 14), (8, -8, 16), (-18, -14, 24)], [4, 3.5, 2.5]),
        Tube([(8, -8, 16), (40, 4, 26), (70, 22, 34)], [3.5, 3, 2.5]),
        Tube([(-22, 12, -20), (-40, 34, -27)], [4.5, 4]),
        Tube([(-22, 12, -8), (2, 2, -10), (40, 32, -10)], [4, 4.5, 4]),
    ]
    return [
        *_muscles(),
        *_ribs(),
        *_spine(),
        *_bowel(),
        Tissue(Ellipsoid((14, -26, 128), (56, 36, 46), (20, 0, 0)), 105, shells=((9, 150),)),  # heart
        Tissue(LIVER, 112, 6, grain=6),
        *_liver_vessels_in_liver(),
        Tissue(SPLEEN, 128, 1, grain=5),
        Tissue(GALLBLADDER, 40, 4, shells=((1.6, 9),)),
        *_kidney(-1, (-60, 33, -30), 2),
        *_kidney(1, (60, 32, -18), 3),
        Tissue(STOMACH, 82, 7, shells=((3.6, 24),), air_above_y=-38, grain=26),
        Tissue(PANCREAS, 98, 11, grain=12),
        *(Tissue(tube, 150) for tube in mesentery),
        Tissue(ESOPHAGUS, 58, 5, shells=((5.6, -150),)),
        Tissue(IVC, 142, 9),
        Tissue(PORTAL, 160, 10),
        Tissue(AORTA, 178, 8),
        Tissue(_adrenal(-1, (-33, 16, 30)), 88, 12),
        Tissue(_adrenal(1, (34, 14, 26)), 88, 13),
    ]


def _liver_vessels_in_liver() -> list[Tissue]:
    return [Tissue(part.shape, part.hounsfield, 6) for part in _liver_vessels()]
