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
"""Visible/thermal fusion on ROS 2, guided by diffusion information gains."""

import os as _os

# OpenCV looks at this once, as it loads. It is the wall behind the checks of images/encoded.py,
# for what they do not know: no image of more than their MAX_PIXELS is decompressed. It is 2^30
# pixels otherwise, which are gigabytes.
_os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', '64000000')
