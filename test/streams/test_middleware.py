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

"""What is said of a DDS profile, of shared memory and of discovery, from files and variables."""

import os
from pathlib import Path

import pytest

from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.middleware import (
    find_memory,
    find_profile,
    find_settings,
    Transports,
)

OWN = str(config_file('fast_dds.xml'))
MIB = 1024**2
NEW, OLD = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'
SHARED = (
    '<dds xmlns="http://www.eprosima.com"><profiles><transport_descriptors><transport_descriptor>'
    '<transport_id>a</transport_id><type>SHM</type>{}</transport_descriptor>'
    '</transport_descriptors></profiles></dds>'
)
UDP = (
    '<dds><profiles><participant><rtps><useBuiltinTransports>{}</useBuiltinTransports>'
    '</rtps></participant></profiles></dds>'
)


@pytest.mark.parametrize(
    ('environ', 'found', 'advice'),
    [
        ({}, 'domain 0, discovery SUBNET', []),
        (
            {'ROS_DOMAIN_ID': '7', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'},
            'domain 7, discovery LOCALHOST',
            [],
        ),
        ({'ROS_LOCALHOST_ONLY': '1'}, 'domain 0, discovery this computer only', []),
        ({'ROS_STATIC_PEERS': '10.0.0.2'}, 'static peers 10.0.0.2', []),
        ({'ROS_DOMAIN_ID': 'abc'}, 'domain abc', ["ROS_DOMAIN_ID is 'abc': set a number"]),
        ({'ROS_DOMAIN_ID': '233'}, 'domain 233', ["ROS_DOMAIN_ID is '233': set a number"]),
        ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, 'OFF', ['nodes do not find each other']),
        ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'ALL'}, 'ALL', ['use one of SUBNET, LOCALHOST']),
    ],
)
def test_discovery(environ, found, advice):
    finding = find_settings(environ)
    assert found in finding.found
    assert len(finding.advice) == len(advice)
    assert all(part in text for part, text in zip(advice, finding.advice, strict=True))


def test_the_shipped_profile_is_known_by_its_content(tmp_path):
    copy = tmp_path / 'copy.xml'
    copy.write_bytes(Path(OWN).read_bytes())
    for path in (OWN, str(copy)):
        finding, transports = find_profile({NEW: path}, 'rmw_fastrtps_cpp')
        assert finding.found == f"{path} (dig2dig's own, 32 MiB of shared memory)"
        assert finding.advice == ()
        assert transports == Transports(32 * MIB)


@pytest.mark.parametrize(
    ('text', 'found', 'advice', 'transports'),
    [
        (
            SHARED.format('<segment_size>8388608</segment_size>'),
            '(8 MiB of shared memory)',
            '',
            Transports(8 * MIB),
        ),
        (
            SHARED.format('<segment_size>1048576</segment_size>'),
            '(1 MiB of shared memory)',
            'do not fit into 1 MiB',
            Transports(MIB),
        ),
        (SHARED.format(''), '(0.5 MiB', 'do not fit into 0.5 MiB', Transports(MIB // 2)),
        (UDP.format('true'), '(0.5 MiB', 'do not fit into 0.5 MiB', Transports(MIB // 2)),
        (UDP.format('false'), 'without shared memory', '', Transports(is_udp=True)),
        ('<dds>', 'none that can be read', 'is not XML that Fast DDS', Transports(MIB // 2)),
        (
            '<!DOCTYPE a [<!ENTITY b "c">]><dds>&b;</dds>',
            'none that can be read',
            'it declares entities',
            Transports(MIB // 2),
        ),
        (' ' * (2 << 20), 'none that can be read', 'it is not a profile', Transports(MIB // 2)),
    ],
)
def test_other_profiles_of_fast_dds(tmp_path, text, found, advice, transports):
    path = tmp_path / 'own.xml'
    path.write_text(text)
    finding, taken = find_profile({NEW: str(path)}, 'rmw_fastrtps_dynamic_cpp')
    assert found in finding.found
    assert taken == transports
    assert len(finding.advice) == bool(advice)
    assert advice in ''.join(finding.advice)
    assert not advice or finding.advice[0].endswith(f'export {NEW}={OWN}')


@pytest.mark.parametrize(
    ('environ', 'advice'),
    [
        ({}, f'may be lost: here and for the camera drivers, export {NEW}={OWN}'),
        ({'ROS_DISTRO': 'humble'}, f'export {OLD}={OWN}'),
        ({NEW: '/no/such.xml'}, f'{NEW} names /no/such.xml, which cannot be read (No such file'),
        ({OLD: OWN}, f'{OLD} is set, but this Fast DDS reads its profile from {NEW}'),
        ({NEW: OWN, 'ROS_DISTRO': 'jazzy'}, f'{NEW} is set, but this Fast DDS reads'),
        ({OLD: OWN, 'ROS_DISTRO': 'jazzy'}, ''),
        ({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}, ''),
    ],
)
def test_a_profile_that_fast_dds_does_not_read_is_said(environ, advice):
    finding, _ = find_profile(environ, 'rmw_fastrtps_cpp')
    assert len(finding.advice) == bool(advice)
    assert advice in ''.join(finding.advice)


@pytest.mark.parametrize(
    ('uri', 'found', 'advice'),
    [
        ('', "Cyclone DDS's own defaults", ''),
        ('<CycloneDDS/>', 'in CYCLONEDDS_URI itself', ''),
        (f'file://{OWN}', OWN, ''),
        (
            'file:///no/such.xml',
            'none that can be read',
            'names /no/such.xml, which does not exist',
        ),
    ],
)
def test_cyclone_dds_has_another_variable(uri, found, advice):
    finding, transports = find_profile({'CYCLONEDDS_URI': uri, NEW: OWN}, 'rmw_cyclonedds_cpp')
    assert finding.found == found
    assert advice in ''.join(finding.advice)
    assert transports == Transports(is_udp=True)


def test_other_middleware_has_no_profile():
    finding, transports = find_profile({NEW: '/no/such.xml'}, 'rmw_zenoh_cpp')
    assert finding.found == 'rmw_zenoh_cpp has none'
    assert finding.advice == ()
    assert transports == Transports()


def test_shared_memory_has_to_hold_three_processes(tmp_path):
    status = os.statvfs(tmp_path)
    total = status.f_blocks * status.f_frsize
    buffers = tmp_path / 'rmem_max'
    buffers.write_text('212992\n')
    enough = find_memory(Transports(1), tmp_path, buffers)
    assert enough.advice == ()
    assert enough.found.startswith(f'{tmp_path} {total / MIB:.0f} MiB')
    assert enough.found.endswith('rmem_max 212992')
    (advice,) = find_memory(Transports(total // 2), tmp_path, buffers).advice
    assert advice.startswith('two cameras and the node need')
    assert '--shm-size' in advice
    if status.f_bavail < status.f_blocks:
        (advice,) = find_memory(Transports(total // 3), tmp_path, buffers).advice
        assert 'is nearly full' in advice


def test_a_system_without_shared_memory_is_said(tmp_path):
    finding = find_memory(Transports(MIB), tmp_path / 'none', tmp_path / 'none')
    assert finding.found == f'no {tmp_path / "none"}'
    assert len(finding.advice) == 1


def test_small_socket_buffers_matter_to_who_sends_by_udp(tmp_path):
    buffers = tmp_path / 'rmem_max'
    for size, count in (('212992', 1), ('10485760', 0)):
        buffers.write_text(size)
        advice = find_memory(Transports(is_udp=True), tmp_path, buffers).advice
        assert len(advice) == count
        assert all('sysctl -w net.core.rmem_max' in text for text in advice)
