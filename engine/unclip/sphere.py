"""The sphere that CLIP's embeddings lie on: ways along it, means, and the directions in which points around a place differ.

Symbols:

    angle    between two unit vectors, in radians: their distance along the sphere
    tangent  vector at right angles to a point; its length is how far the way goes that it begins

Between opposite points no way is shorter than the others: here it goes by way of `aside`. All is worked out in float64, for small angles are
differences of nearly equal numbers.

Dimensions: N points, D embedding width; "..." is any, also none.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NOTHING = 1e-9
"""Lengths below are those of rounding."""
ROUNDS = 100
"""Of the mean at most; a few suffice where no two points are nearly opposite."""


def angle(one: Tensor, other: Tensor) -> Tensor:
    """Return the angle between unit vectors, (...) float64, as exact for small angles as for large ones.

    Shapes:
        one, other  (..., D) float, unit length

    Source: Kahan 2006, How futile are mindless assessments of roundoff, section 12.
    """
    one, other = one.double(), other.double()
    return 2 * torch.atan2((one - other).norm(dim=-1), (one + other).norm(dim=-1))


def aside(*taken: Tensor) -> Tensor:
    """Return a unit vector at right angles to given ones, (D,) float64: an axis of space, as far as it is.

    Shapes:
        taken  (D,) float each, unit length, at right angles to each other, fewer than D
    """
    basis = torch.stack(taken).double()
    axes = torch.eye(basis.shape[1], dtype=torch.float64, device=basis.device)
    rest = axes - basis.T @ basis
    return F.normalize(rest[rest.norm(dim=1).argmax()], dim=0)


def log(at: Tensor, points: Tensor) -> Tensor:
    """Return the tangents at a point that begin the shortest ways to others, (N, D) float64.

    Shapes:
        at      (D,) float, unit length
        points  (N, D) float, unit length
    """
    at, points = at.double(), points.double()
    across = points - (points @ at)[:, None] * at
    length = across.norm(dim=1, keepdim=True)
    # Opposite points lie in no direction more than in another.
    direction = torch.where(length > NOTHING, across / length.clamp(min=NOTHING), aside(at))
    return angle(at, points)[:, None] * direction


def exp(at: Tensor, tangents: Tensor) -> Tensor:
    """Return where the ways end that tangents begin, (..., D) float64 of unit length: the inverse of `log`.

    Shapes:
        at        (D,) float, unit length
        tangents  (..., D) float, at right angles to it
    """
    at, tangents = at.double(), tangents.double()
    length = tangents.norm(dim=-1, keepdim=True)
    return F.normalize(length.cos() * at + torch.sinc(length / math.pi) * tangents, dim=-1)


def slerp(one: Tensor, other: Tensor, shares: Tensor | float) -> Tensor:
    """Return points on the shortest way between two: equal steps of the share are equal angles.

    Shapes:
        one, other  (D,) float, unit length
        shares      (N,) or one number, 0 = one, 1 = other
        returns     (N, D) or (D,) in the dtype of `one`

    Source: Shoemake 1985, Animating rotation with quaternion curves.
    """
    tangent = log(one, other[None])[0]
    along = torch.as_tensor(shares, dtype=torch.float64, device=one.device)[..., None] * tangent
    return exp(one, along).to(one.dtype)


def mean(points: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the point whose squared angles to given ones, times their weights, have the smallest sum.

    It is unique where all lie within a right angle of some point; of others, a point from which no step is better.

    Shapes:
        points   (N, D) float, unit length
        returns  (D,) in the dtype of `points`

    Source: Buss & Fillmore 2001, Spherical averages and applications to spherical splines, algorithm A1.
    """
    share = torch.tensor(weights, dtype=torch.float64, device=points.device)
    share = share / share.sum()
    chord = share @ points.double()
    # Where everything cancels out, the search begins at the heaviest point.
    at = F.normalize(chord, dim=0) if chord.norm() > NOTHING else points[int(share.argmax())].double()
    for _ in range(ROUNDS):
        step = share @ log(at, points)
        at = exp(at, step)
        if step.norm() < NOTHING:
            break
    return at.to(points.dtype)


def principal_directions(at: Tensor, points: Tensor, count: int) -> Tensor:
    """Return the directions at a point in which others differ most from each other, the first most of all.

    Where they differ in fewer ways than are asked for, the rest are any at right angles.

    Shapes:
        at       (D,) float, unit length
        points   (N, D) float, unit length
        returns  (count, D) float64, unit length, at right angles to each other and to `at`; the largest number of each is positive

    Source: Fletcher et al. 2004, Principal geodesic analysis, section 4.4, with the mean of the tangents taken away: the point need not be theirs.
    """
    tangents = log(at, points)
    _, sizes, rows = torch.linalg.svd(tangents - tangents.mean(dim=0), full_matrices=False)
    directions = [row for row, size in zip(rows[:count], sizes.tolist(), strict=False) if size > NOTHING]
    while len(directions) < count:
        directions.append(aside(at, *directions))
    found = torch.stack(directions)
    return found * found.gather(1, found.abs().argmax(dim=1, keepdim=True)).sign()
