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
How ROS processes find each other on this machine, and whether images fit through.

Read from the environment and from files, without ROS. An environment belongs to one process: the
camera drivers need the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from dig2dig_ros.resources import (
    config_file,
    FAST_DDS_PROFILE,
    profile_variable,
    PROFILE_VARIABLES,
    TRANSPORTS_VARIABLE,
)
from dig2dig_ros.streams.installation import Finding

FAST_DDS, CYCLONE = 'rmw_fastrtps', 'rmw_cyclonedds'
_RANGES = ('SUBNET', 'LOCALHOST', 'OFF', 'SYSTEM_DEFAULT')
# The ports of DDS end at this domain.
_LAST_DOMAIN = 232
# Bytes of shared memory of a process without a profile, and bytes that fit several images.
_DEFAULT_SEGMENT, _ENOUGH_SEGMENT = 512 * 1024, 4 * 1024**2
# Two cameras and the node.
_PROCESSES = 3
# Bytes of the socket buffers: images arrive as bursts of datagrams.
_ENOUGH_BUFFER = 4 * 1024**2
_LONGEST_PROFILE = 1 << 20
_MIB = 1024**2


def find_settings(environ: Mapping[str, str]) -> Finding:
    """Return the domain and the range of discovery, and problems with them."""
    advice = []
    domain = environ.get('ROS_DOMAIN_ID') or '0'
    if not (domain.isdecimal() and int(domain) <= _LAST_DOMAIN):
        advice.append(
            f'ROS_DOMAIN_ID is {domain!r}: set a number from 0 to 101, the same for all nodes'
        )
    reach = environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or 'SUBNET'
    if reach not in _RANGES:
        advice.append(
            f'ROS_AUTOMATIC_DISCOVERY_RANGE is {reach!r}: use one of {", ".join(_RANGES)}'
        )
    peers = environ.get('ROS_STATIC_PEERS', '')
    if reach == 'OFF' and not peers:
        advice.append(
            'ROS_AUTOMATIC_DISCOVERY_RANGE is OFF, so nodes do not find each other: use LOCALHOST '
            'or SUBNET'
        )
    if environ.get('ROS_LOCALHOST_ONLY') == '1':
        reach = 'this computer only (ROS_LOCALHOST_ONLY)'
    found = f'domain {domain}, discovery {reach}'
    if peers:
        found += f', static peers {peers}'
    if server := environ.get('ROS_DISCOVERY_SERVER'):
        found += f', discovery server {server}'
    return Finding('discovery', found, tuple(advice))


class Transports(NamedTuple):
    """
    How a process sends images.

    :param segment: bytes of its shared memory; 0 if it has none, or if that is unknown.
    :param is_udp: whether images on this machine go by UDP.
    """

    segment: int = 0
    is_udp: bool = False


def find_profile(environ: Mapping[str, str], middleware: str) -> tuple[Finding, Transports]:
    """
    Return the DDS profile that this environment gives a process.

    :param middleware: name of the RMW implementation, such as rmw_fastrtps_cpp.
    """
    if middleware.startswith(FAST_DDS):
        return _find_fast_dds(environ)
    if not middleware.startswith(CYCLONE):
        return Finding('DDS profile', f'{middleware or "no middleware"} has none'), Transports()
    uri = environ.get('CYCLONEDDS_URI', '')
    path = uri.removeprefix('file://')
    if not uri or uri.lstrip().startswith('<'):
        found = 'in CYCLONEDDS_URI itself' if uri else "Cyclone DDS's own defaults"
        return Finding('DDS profile', found), Transports(is_udp=True)
    if Path(path).is_file():
        return Finding('DDS profile', path), Transports(is_udp=True)
    advice = f'CYCLONEDDS_URI names {path}, which does not exist: give a file as file:///PATH'
    return Finding('DDS profile', 'none that can be read', (advice,)), Transports(is_udp=True)


def _find_fast_dds(environ: Mapping[str, str]) -> tuple[Finding, Transports]:
    name = profile_variable(environ)
    own = config_file(FAST_DDS_PROFILE)
    export = f'here and for the camera drivers, export {name}={own}'
    (other,) = set(PROFILE_VARIABLES) - {name}
    path = environ.get(name, '')
    if path:
        return _read_fast_dds(Path(path), own, name, export)
    if transports := environ.get(TRANSPORTS_VARIABLE):
        return Finding('DDS profile', f'{TRANSPORTS_VARIABLE}={transports}'), Transports()
    found = "none, so Fast DDS's own 512 KiB of shared memory"
    advice = f'a colour image of 640x480 does not fit into it, and may be lost: {export}'
    if environ.get(other):
        advice = f'{other} is set, but this Fast DDS reads its profile from {name}: {export}'
    return Finding('DDS profile', found, (advice,)), Transports(_DEFAULT_SEGMENT)


def _read_fast_dds(path: Path, own: Path, name: str, export: str) -> tuple[Finding, Transports]:
    def finding(found: str, *advice: str) -> Finding:
        return Finding('DDS profile', found, advice)

    try:
        if path.stat().st_size > _LONGEST_PROFILE:
            raise ValueError('it is not a profile')
        text = path.read_bytes()
        if b'<!ENTITY' in text:
            raise ValueError('it declares entities')
        root = ElementTree.fromstring(text)
    except OSError as error:
        problem = f'{name} names {path}, which cannot be read ({error.strerror}): {export}'
        return finding('none that can be read', problem), Transports(_DEFAULT_SEGMENT)
    except (ValueError, ElementTree.ParseError) as error:
        problem = f'{path} is not XML that Fast DDS can read ({error}): {export}'
        return finding('none that can be read', problem), Transports(_DEFAULT_SEGMENT)
    texts = [
        (element.tag.rpartition('}')[2], (element.text or '').strip()) for element in root.iter()
    ]
    has_shared_memory = ('type', 'SHM') in texts
    sizes = [int(value) for tag, value in texts if tag == 'segment_size' and value.isdecimal()]
    is_alone = ('useBuiltinTransports', 'false') in texts
    if not has_shared_memory and is_alone:
        return finding(f'{path}, without shared memory'), Transports(is_udp=True)
    segment = max(sizes, default=_DEFAULT_SEGMENT) if has_shared_memory else _DEFAULT_SEGMENT
    whose = "dig2dig's own, " if text == own.read_bytes() else ''
    found = f'{path} ({whose}{segment / _MIB:.3g} MiB of shared memory)'
    if segment < _ENOUGH_SEGMENT:
        problem = f'large images do not fit into {segment / _MIB:.3g} MiB: {export}'
        return finding(found, problem), Transports(segment)
    return finding(found), Transports(segment)


def find_memory(
    transports: Transports,
    folder: Path = Path('/dev/shm'),
    buffers: Path = Path('/proc/sys/net/core/rmem_max'),
) -> Finding:
    """
    Return the shared memory and the socket buffers that the system allows.

    :param transports: the transports that need them.
    """
    advice = []
    try:
        status = os.statvfs(folder)
        total, free = (n * status.f_frsize for n in (status.f_blocks, status.f_bavail))
        found = f'{folder} {total / _MIB:.0f} MiB, {free / _MIB:.0f} MiB free'
    except OSError:
        total = free = 0
        found = f'no {folder}'
    needed = _PROCESSES * transports.segment
    if total < needed:
        advice.append(
            f'two cameras and the node need {needed / _MIB:.0f} MiB of {folder}: enlarge it '
            '(docker run --shm-size=512m, or --ipc=host)'
        )
    elif free < needed:
        advice.append(
            f'{folder} is nearly full: remove its fastrtps_* files while no node runs (fastdds '
            'shm clean)'
        )
    try:
        largest = int(buffers.read_text(encoding='ascii'))
    except (OSError, ValueError):
        largest = None
    if largest is not None:
        found += f'; {buffers.name} {largest}'
    if transports.is_udp and largest is not None and largest < _ENOUGH_BUFFER:
        advice.append(
            f'images are sent by UDP, and a socket buffer of {largest} bytes loses parts of them: '
            'sudo sysctl -w net.core.rmem_max=10485760'
        )
    return Finding('memory', found, tuple(advice))
