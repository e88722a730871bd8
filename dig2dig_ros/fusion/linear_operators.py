# Copyright 2026 The dig2dig Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Linear operators between images: what blurs and reduces them, forwards, transposed and undone.

An operator A maps (..., H, W) to (..., h, w), channel by channel, between two sizes that are
fixed when it is made. Besides A it has A^T (``adjoint``) and the damped pseudo-inverse

    A^T (A A^T + damping)^-1 = (A^T A + damping)^-1 A^T,

which is the Moore-Penrose pseudo-inverse A^+ where ``damping`` is 0. Damping is what noise asks
for: where c has the expectation c_hat with deviation s, and n the deviation sigma, then
c_hat + pseudo_inverse(y - A c_hat, (sigma / s)^2) is the best linear estimate of c.

``outer @ inner`` composes operators, and merges what can be merged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
import math

import torch
from torch import Tensor
import torch.nn.functional as F

Size = tuple[int, int]

# Iterations where a pseudo-inverse has no closed form, if it does not converge before.
_MAX_ITERATIONS = 100
# What an operator lets pass with less power than this does not explain an observation.
_EXPLAINED_DAMPING = 1e-3
# Below this part of white noise unexplained, little of it would be what no scene explains.
_LEAST_UNSEEN = 0.25
_FAST_MULTIPLE = 32


class LinearOperator(ABC):
    """
    A linear map between images of two sizes.

    :param input_size: (H, W) of c.
    :param output_size: (h, w) of A c.
    """

    def __init__(self, input_size: Size, output_size: Size) -> None:
        for size in (input_size, output_size):
            if min(size) < 1:
                raise ValueError(f'the size {size} is not (height, width) of at least 1 each')
        self.input_size = input_size
        self.output_size = output_size
        self._moved: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        self._unseen: float | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """Return A c: (..., H, W) to (..., h, w)."""
        return self._forward(_checked(image, self.input_size, 'input'))

    def adjoint(self, observed: Tensor) -> Tensor:
        """Return A^T y: (..., h, w) to (..., H, W)."""
        return self._adjoint(_checked(observed, self.output_size, 'output'))

    def pseudo_inverse(self, observed: Tensor, damping: float = 0.0) -> Tensor:
        """
        Return A^T (A A^T + damping)^-1 y: (..., h, w) to (..., H, W).

        :param damping: not negative; 0 is A^+ y, the shortest c that comes closest to y.
        """
        if not 0 <= damping < math.inf:
            raise ValueError(f'damping is {damping}, but must be at least 0 and finite')
        return self._inverse(_checked(observed, self.output_size, 'output'), damping)

    def misfit(self, observed: Tensor) -> float:
        """
        Return how much there is in y that no c explains, as the deviation of white noise.

        This is noise, or the operator is not that of the camera: what is sharp cannot have been
        blurred. 0 where an operator could explain nearly any y.

        :param observed: (1, 1, h, w).
        """
        if self._unseen is None:
            generator = torch.Generator().manual_seed(0)
            white = torch.randn((1, 1, *self.output_size), generator=generator)
            self._unseen = self._unexplained(white.to(observed))
        if self._unseen < _LEAST_UNSEEN:
            return 0.0
        return self._unexplained(observed - observed.mean()) / self._unseen

    def _unexplained(self, observed: Tensor) -> float:
        residual = observed - self(self.pseudo_inverse(observed, _EXPLAINED_DAMPING))
        return float(residual.square().mean().sqrt())

    def __matmul__(self, inner: LinearOperator) -> LinearOperator:
        """Return the operator that applies ``inner`` first."""
        if inner.output_size != self.input_size:
            raise ValueError(
                f'an operator on images of {self.input_size} cannot follow one that gives '
                f'{inner.output_size}'
            )
        if isinstance(self, Identity):
            return inner
        if isinstance(inner, Identity):
            return self
        if isinstance(self, Separable) and isinstance(inner, Separable):
            return Separable(self.rows @ inner.rows, self.columns @ inner.columns)
        return Composition(self, inner)

    def _constant(self, name: str, constant: Tensor, like: Tensor) -> Tensor:
        """Return a constant of this operator on the device of an image, as precise as it."""
        key = (name, like.device, like.dtype)
        if key not in self._moved:
            dtype = like.dtype
            if constant.is_complex():
                dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
            self._moved[key] = constant.to(like.device, dtype).contiguous()
        return self._moved[key]

    @abstractmethod
    def _forward(self, image: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, observed: Tensor) -> Tensor: ...

    def _inverse(self, observed: Tensor, damping: float) -> Tensor:
        """
        Minimise |A c - y|^2 + damping |c|^2 with conjugate gradients, from c = 0.

        In single precision it ends early, about where more iterations would fit the noise.
        """

        def power(image: Tensor) -> Tensor:
            return image.square().sum(dim=(-2, -1), keepdim=True)

        tiny = torch.finfo(observed.dtype).tiny
        direction = gradient = self._adjoint(observed)
        solution, residual = torch.zeros_like(gradient), observed
        slope = power(gradient)
        enough = torch.finfo(observed.dtype).eps * slope
        for _ in range(_MAX_ITERATIONS):
            if bool((slope <= enough).all()):
                break
            image = self._forward(direction)
            step = slope / (power(image) + damping * power(direction) + tiny)
            solution = solution + step * direction
            residual = residual - step * image
            gradient = self._adjoint(residual) - damping * solution
            following = power(gradient)
            direction = gradient + following / (slope + tiny) * direction
            slope = following
        return solution


class Identity(LinearOperator):
    """Nothing happens to the image; what is left of y = A c + n is the noise."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, size)

    def _forward(self, image: Tensor) -> Tensor:
        return image

    def _adjoint(self, observed: Tensor) -> Tensor:
        return observed

    def _inverse(self, observed: Tensor, damping: float) -> Tensor:
        return observed / (1 + damping)


class Separable(LinearOperator):
    """
    The same matrix for all columns of the image, and another one for all rows: R c C^T.

    Every down-sampling is one, and a Gaussian blur. The singular values of the whole are the
    products of those of the two, so the pseudo-inverse takes four small matrix products.

    :param rows: R, (h, H), acts along the height.
    :param columns: C, (w, W), acts along the width.
    """

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__((rows.shape[1], columns.shape[1]), (rows.shape[0], columns.shape[0]))
        self.rows = rows
        self.columns = columns

    def _matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return R and C."""
        rows = self._constant('rows', self.rows, like)
        return rows, self._constant('columns', self.columns, like)

    @cached_property
    def _factors(self) -> list[Tensor]:
        """U^T, the singular values and V of R, and the same of C."""
        factors = []
        for matrix in (self.rows, self.columns):
            u, values, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
            factors += [u.mT, values, vt.mT]
        return factors

    def _forward(self, image: Tensor) -> Tensor:
        rows, columns = self._matrices(image)
        return rows @ image @ columns.mT

    def _adjoint(self, observed: Tensor) -> Tensor:
        rows, columns = self._matrices(observed)
        return rows.mT @ observed @ columns

    def _inverse(self, observed: Tensor, damping: float) -> Tensor:
        ut_r, values_r, v_r, ut_c, values_c, v_c = (
            self._constant(f'factor {index}', factor, observed)
            for index, factor in enumerate(self._factors)
        )
        values = values_r[:, None] * values_c[None, :]
        spectrum = (ut_r @ observed @ ut_c.mT) * _inverted(values, damping)
        solution: Tensor = v_r @ spectrum @ v_c.mT
        return solution


class Convolution(LinearOperator):
    """
    Blur with a point spread function, in the Fourier domain.

    Beyond its border the image goes on as its mirror image, pixel 0 next to itself. The
    pseudo-inverse has a closed form if the function is symmetric under both flips, since
    convolution then keeps an image that is mirrored into twice its size mirrored; else it is found
    by iteration.

    :param psf: (h, w), odd sides, at most as large as the image; the middle is the origin.
    """

    def __init__(self, psf: Tensor, size: Size) -> None:
        super().__init__(size, size)
        if psf.ndim != 2 or not all(side % 2 for side in psf.shape):
            raise ValueError(
                f'the point spread function has shape {tuple(psf.shape)}, but must be (h, w) with '
                'odd sides'
            )
        if psf.shape[0] > size[0] or psf.shape[1] > size[1]:
            raise ValueError(
                f'the point spread function {tuple(psf.shape)} is larger than the image {size}'
            )
        psf = psf.double()
        # What a pixel sees beyond the border.
        self._reach = (psf.shape[0] // 2, psf.shape[1] // 2)
        self._period = (
            _fast_length(size[0] + 2 * self._reach[0]),
            _fast_length(size[1] + 2 * self._reach[1]),
        )
        self._transfer = _transfer_function(psf, self._period)
        self._mirrored: Tensor | None = None
        if all(torch.allclose(psf, flip) for flip in (psf.flip(0), psf.flip(1))):
            self._mirrored = _transfer_function(psf, (2 * size[0], 2 * size[1]))

    def _forward(self, image: Tensor) -> Tensor:
        (height, width), (top, left) = self.input_size, self._reach
        for axis, reach in ((-1, left), (-2, top)):
            before = image.narrow(axis, 0, reach).flip(axis)
            after = image.narrow(axis, image.shape[axis] - reach, reach).flip(axis)
            image = torch.cat([before, image, after], dim=axis)
        blurred = _filtered(image, self._constant('transfer', self._transfer, image), self._period)
        return blurred[..., top : top + height, left : left + width]

    def _adjoint(self, observed: Tensor) -> Tensor:
        transfer = self._constant('transfer', self._transfer, observed).conj()
        (height, width), (top, left) = self.output_size, self._reach
        padded = F.pad(observed, (left, left, top, top))
        image = _filtered(padded, transfer, self._period)
        for axis, side, reach in ((-1, width, left), (-2, height, top)):
            # What went beyond the border falls back to where it came from.
            before = image.narrow(axis, 0, reach).flip(axis)
            after = image.narrow(axis, reach + side, reach).flip(axis)
            image = image.narrow(axis, reach, side).clone()
            image.narrow(axis, 0, reach).add_(before)
            image.narrow(axis, side - reach, reach).add_(after)
        return image

    def _inverse(self, observed: Tensor, damping: float) -> Tensor:
        if self._mirrored is None:
            return super()._inverse(observed, damping)
        height, width = self.output_size
        observed = torch.cat([observed, observed.flip(-1)], dim=-1)
        observed = torch.cat([observed, observed.flip(-2)], dim=-2)
        transfer = self._constant('mirrored', self._mirrored, observed)
        inverse = _inverted(transfer, damping)
        return _filtered(observed, inverse, (2 * height, 2 * width))[..., :height, :width]


class Composition(LinearOperator):
    """One operator after another; its pseudo-inverse is found by iteration."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        super().__init__(inner.input_size, outer.output_size)
        self.outer = outer
        self.inner = inner

    def _forward(self, image: Tensor) -> Tensor:
        return self.outer(self.inner(image))

    def _adjoint(self, observed: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(observed))


def gaussian_blur(size: Size, sigma: float) -> Separable:
    """
    Return the blur with a Gaussian, cut off at four sigma; the image is mirrored at its border.

    :param sigma: standard deviation in pixels, positive.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f'sigma is {sigma}, but must be positive and finite')
    radius = math.ceil(4 * sigma)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (taps / sigma).square())
    kernel /= kernel.sum()

    def matrix(length: int) -> Tensor:
        source = (torch.arange(length)[:, None] + taps.long()[None, :]) % (2 * length)
        source = torch.minimum(source, 2 * length - 1 - source)
        result = torch.zeros(length, length, dtype=torch.float64)
        return result.scatter_add_(1, source, kernel.expand(length, -1).contiguous())

    return Separable(matrix(size[0]), matrix(size[1]))


def motion_psf(length: float, angle: float) -> Tensor:
    """
    Return the point spread function of a straight, even motion.

    :param length: in pixels, not negative.
    :param angle: in degrees, counter-clockwise from the image's x axis.
    :return: (h, w), odd sides, summing to 1.
    """
    if not 0 <= length < math.inf:
        raise ValueError(f'length is {length}, but must be at least 0 and finite')
    # Close enough together that every pixel on the way is met several times.
    samples = 8 * math.ceil(length) + 1
    along = ((torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5) * length
    x = along * math.cos(math.radians(angle))
    y = -along * math.sin(math.radians(angle))
    half_w, half_h = (math.ceil(float(axis.abs().max()) - 1e-9) for axis in (x, y))
    psf = torch.zeros(2 * half_h + 1, 2 * half_w + 1, dtype=torch.float64)
    # Each sample is shared out among its neighbours bilinearly: hats of width one around pixels.
    rows = torch.arange(-half_h, half_h + 1)[None, :] - y[:, None]
    columns = torch.arange(-half_w, half_w + 1)[None, :] - x[:, None]
    psf = (1 - rows.abs()).clamp_min(0).T @ (1 - columns.abs()).clamp_min(0)
    return psf / psf.sum()


def down_sampling(size: Size, target: Size) -> Separable:
    """
    Return the mean over what each pixel of a smaller image covers, as on a sensor; any ratio.

    :param size: (H, W) of the scene.
    :param target: (h, w) of the observed image, at most ``size``.
    """
    if not (1 <= target[0] <= size[0] and 1 <= target[1] <= size[1]):
        raise ValueError(
            f'cannot reduce {size} to {target}: each side must be 1 to that of before'
        )

    def matrix(length: int, reduced: int) -> Tensor:
        ratio = length / reduced
        pixels = torch.arange(length, dtype=torch.float64)[None, :]
        places = torch.arange(reduced, dtype=torch.float64)[:, None]
        ends = torch.minimum(pixels + 1, (places + 1) * ratio)
        weights = (ends - torch.maximum(pixels, places * ratio)).clamp_min(0)
        return weights / weights.sum(dim=1, keepdim=True)

    return Separable(matrix(size[0], target[0]), matrix(size[1], target[1]))


def _checked(image: Tensor, size: Size, side: str) -> Tensor:
    if tuple(image.shape[-2:]) != size:
        raise ValueError(
            f"the operator's {side} is of size {size}, but the image of {tuple(image.shape[-2:])}"
        )
    return image


def _inverted(values: Tensor, damping: float) -> Tensor:
    """Return conj(v) / (|v|^2 + damping), and zero where v is zero within rounding."""
    power = (values * values.conj()).real
    if damping > 0:
        return values.conj() / (power + damping)
    precision = torch.finfo(power.dtype).eps * max(values.shape[-2:])
    kept = power > power.max() * precision**2
    return torch.where(kept, values.conj() / torch.where(kept, power, 1.0), 0.0)


def _fast_length(length: int) -> int:
    """Return the side of a fast Fourier transform for at least that many pixels."""
    return -(-length // _FAST_MULTIPLE) * _FAST_MULTIPLE


def _transfer_function(psf: Tensor, period: Size) -> Tensor:
    """Return the Fourier transform of a point spread function in so large an image."""
    kernel = psf.new_zeros(period)
    kernel[: psf.shape[0], : psf.shape[1]] = psf
    kernel = kernel.roll((-(psf.shape[0] // 2), -(psf.shape[1] // 2)), (0, 1))
    transfer: Tensor = torch.fft.rfft2(kernel)
    return transfer


def _filtered(image: Tensor, transfer: Tensor, period: Size) -> Tensor:
    """Convolve in a period, which the image is filled up to with zeros."""
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(image, s=period) * transfer, s=period)
    return filtered
