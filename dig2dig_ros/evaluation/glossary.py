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

"""What the figures of a report mean: what is measured, its range, and which way is better."""

from __future__ import annotations

import re

# By the term that a heading begins with; where several fit, the longest counts.
_EXPLANATIONS = {
    'PSNR_sum': 'Peak signal-to-noise ratio against each camera, summed, in dB. Higher is '
    'better: the fused image is closer to both. The mean of the cameras does well.',
    'SSIM': 'Structural similarity to each camera, summed, at most 2. Higher is better. The mean '
    'of the cameras does well.',
    'MSE': 'Mean squared error against both cameras, in squared grey levels, from 0. Lower is '
    'better. The mean of the cameras does best.',
    'CC': 'Correlation with each camera, averaged, -1 to 1. Higher is better.',
    'Nabf': 'Edges of the fused image that neither camera has: artefacts, 0 to 1. Lower is '
    'better.',
    'Qabf': 'Edges of both cameras that the fused image keeps, 0 to 1. Higher is better.',
    'VIF': 'Visual information of each camera that the eye finds in the fused image, summed; '
    'about 0 to 2, more where contrast was enhanced. Higher is better.',
    'SCD': 'How much the fused image less one camera looks like the other, summed, -2 to 2. '
    'Higher is better.',
    'MI': 'Mutual information of the fused image and each camera, summed, in bits, from 0. '
    'Higher is better.',
    'EN': 'Entropy of the grey levels of the fused image, 0 to 8 bits. Higher counts as better, '
    'but noise raises it, too.',
    'SD': 'Standard deviation of the fused image in grey levels: its contrast, 0 to 127.5. '
    'Higher counts as better.',
    'SF': 'Spatial frequency: how much neighbouring pixels differ, in grey levels, from 0. '
    'Higher counts as better, but noise raises it, too.',
    'AG': 'Average gradient of the fused image in grey levels a pixel, from 0. Higher counts as '
    'better, but noise raises it, too.',
    'EI': 'Edge intensity: mean strength of the Sobel edges of the fused image, from 0. Higher '
    'counts as better, but noise raises it, too.',
    'LPIPS': 'Perceptual distance to both cameras, as a network sees it, from 0. Lower is better.',
    'mean rank': 'Place among the rows, averaged over several metrics; 1 is best in all. Lower '
    'is better.',
    'denoiser calls': 'Images that went through the denoiser for one pair. Fewer is cheaper.',
    'GFLOP': 'Billions of floating-point operations of the denoiser for one pair. Lower is '
    'cheaper.',
    'ms': 'Time to fuse one pair in milliseconds, median. Lower is better.',
    'time of a fusion': 'From the images to the fused image, without transport. Lower is better.',
    'quality of': 'Means over the scored pairs, here for one row; the tables have all.',
    'AP50': 'Average precision of persons: the area under precision against recall where a box '
    'counts from an overlap (IoU) of 0.5. 0 to 100 %, higher is better.',
    'AP50 -': 'AP50 minus that of the other image, in percentage points. Above 0 is better.',
    'AP50:95': 'Average precision, averaged over overlaps (IoU) from 0.5 to 0.95: also asks how '
    'well boxes fit. 0 to 100 %, higher is better.',
    '95 % interval': 'Where the figure lies in 95 % of resamplings of the images. Narrower is '
    'more certain.',
    'miss rate': 'Labelled persons that were not found, 0 to 100 %. Lower is better.',
    'missed': 'Persons that were not found, 0 to 100 %. Lower is better.',
    'FPPI': 'False alarms per image, from 0. Lower is better.',
    'person contrast': 'Mean luma inside the box of a person minus that of the ring around it, '
    '-255 to 255 grey levels. Farther from 0 is easier to see; above 0, persons are brighter.',
    'persons': 'Boxes with a high enough score. More is not better in itself: some may be false '
    'alarms.',
    'also in': 'Persons of this row that are also found in the other image, 0 to 100 %. '
    'Agreement is not truth.',
    'confirmed by': 'Persons in the fused image that this camera also shows, 0 to 100 %.',
    'by neither': 'Persons in the fused image that neither camera shows, 0 to 100 %: too faint '
    'in each, or false alarms.',
    'pair offset': 'Stamp of the thermal image minus that of the visible one in ms. Closer to 0 '
    'is better: moving persons then match.',
    'mean weight': 'How much each camera counted, averaged over the image; they sum to 1. Near '
    '0.5 is normal; near 0, the camera was not trusted.',
}
_NAMES = sorted(_EXPLANATIONS, key=len, reverse=True)


def explanation(term: str) -> str:
    """Return the meaning of a heading, for a tooltip; empty if it is self-explanatory."""
    plain = re.sub(r'[\s↑↓]+$', '', term).casefold()
    for name in _NAMES:
        # The whole term, or its first words.
        if re.match(rf'{re.escape(name.casefold())}(:? |$)', plain):
            return _EXPLANATIONS[name]
    return ''
