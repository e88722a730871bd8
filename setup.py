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

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

package_name = 'dig2dig'

# OpenCV's wheel is an extra: a ROS installation has the distribution's python3-opencv, which pip
# does not see, and a second cv2 would hide it.
opencv = ['opencv-python-headless>=4.6,<6']

setup(
    name=package_name,
    version='0.1.0',
    description=(
        'ROS 2 node that fuses a visible and a thermal camera into one image with a small '
        'diffusion denoiser, weighted by diffusion information gains'
    ),
    # Next to this file itself, to which `colcon build --symlink-install` only has a link.
    long_description=(Path(__file__).resolve().parent / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The dig2dig Authors',
    author_email='noreply@example.org',
    maintainer='The dig2dig Authors',
    maintainer_email='noreply@example.org',
    license='Apache-2.0',
    keywords=['ROS', 'image fusion', 'thermal', 'infrared', 'diffusion'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['dig2dig_ros', 'dig2dig_ros.*']),
    package_data={
        'dig2dig_ros.evaluation': ['click_page/*', 'report_page/*'],
        'dig2dig_ros.priors': ['weights/*.safetensors', 'weights/*.md'],
    },
    zip_safe=False,
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
        (f'share/{package_name}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{package_name}/config', sorted(glob('config/*'))),
        # The subcommands of dig2dig as `ros2 run` looks for them. They are on no PATH.
        (f'lib/{package_name}', sorted(set(glob('libexec/*')) - set(glob('libexec/*.py')))),
    ],
    install_requires=['numpy>=1.26,<3', 'pyyaml', 'safetensors>=0.4'],
    extras_require={
        'opencv': opencv,
        # What a ROS installation would bring, as wheels (ROS 2 Kilted): rclpy, its middleware,
        # the messages, and OpenCV.
        'ros': [
            'ros-rclpy[fastrtps]>=9.1.2,<9.2',
            'ros-diagnostic-msgs>=5.5.1,<5.6',
            'ros-lifecycle-msgs>=2.3,<2.4',
            'ros-rosgraph-msgs>=2.3,<2.4',
            'ros-sensor-msgs>=5.5.1,<5.6',
            'ros-std-msgs>=5.5.1,<5.6',
            *opencv,
        ],
        # Priors other than the embedded ones; brings neither torchvision nor transformers.
        'pretrained': ['diffusers>=0.37,<1'],
        'torch': ['torch>=2.4,<2.14'],
        'evaluation': [
            # Dask, which evaluates several bags at a time, here or on a cluster.
            'distributed>=2023.12.1,<2027',
            'matplotlib>=3.7',
            'mcap>=1.2,<2',
            'rosbags>=0.11.9,<0.12',
            'scikit-image>=0.22',
        ],
        # For CUDA, onnxruntime-gpu in its place.
        'detection': ['onnxruntime>=1.19,<2'],
        # The fusion as an ONNX file, checked with ONNX Runtime.
        'export': ['onnx>=1.19,<2', 'onnxruntime>=1.19,<2', 'onnxscript>=0.7.1,<1'],
        # The metric LPIPS; brings torchvision, but not the weights of its networks.
        'lpips': ['lpips>=0.1.4,<0.2'],
        # The documentation as a site, see mkdocs.yml; formulas become MathML.
        'docs': [
            'latex2mathml>=3.77,<4',
            'mkdocs>=1.6,<2',
            'mkdocs-material>=9.5,<10',
            'mkdocstrings[python]>=1,<2',
            # Wraps the signatures of the reference.
            'ruff>=0.9,<1',
        ],
        # selenium drives the Chromium that is there, if any.
        'test': ['pytest>=7.4', 'pytest-xdist>=3.5', 'selenium>=4.20,<5'],
    },
    entry_points={
        'console_scripts': [
            'fusion_node = dig2dig_ros.tools.entry_points:fusion_node',
            'detection_fusion = dig2dig_ros.tools.entry_points:detection_fusion',
            'pair_camera = dig2dig_ros.tools.entry_points:pair_camera',
            'dig2dig = dig2dig_ros.tools.entry_points:dig2dig',
        ],
    },
)
