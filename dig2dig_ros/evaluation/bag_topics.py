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

"""Which topics of a bag have the visible and the thermal images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
import re

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import (
    BagError,
    CAMERA_INFO_TYPE,
    conversion_advice,
    is_image,
    Topic,
    topic_listing,
)


@dataclass(frozen=True)
class SourceTopics:
    """
    The topics of a bag to fuse.

    :param others: further thermal streams, by their names.
    :param camera_info: of the visible camera; None if the bag has none.
    :param thermal_camera_info: of the thermal camera; None if the bag has none.
    """

    visible: str
    thermal: str
    others: dict[str, str]
    camera_info: str | None
    thermal_camera_info: str | None = None

    def cameras_of_info(self) -> dict[str, tuple[str, ...]]:
        """Return the cameras by topic of camera_info; images in one namespace share it."""
        topics = {'visible': self.camera_info, 'thermal': self.thermal_camera_info}
        return {
            topic: tuple(source for source, its in topics.items() if its == topic)
            for topic in topics.values()
            if topic is not None
        }

    def __str__(self) -> str:
        """Return a line that lets a user check them."""
        named = {'visible': self.visible, 'thermal': self.thermal, **self.others}
        text = ' with '.join(f'{source} {topic}' for source, topic in named.items())
        infos = [topic for topic in (self.camera_info, self.thermal_camera_info) if topic]
        return f'{text}; camera_info {" and ".join(dict.fromkeys(infos)) or "of neither"}'


_VISIBLE_WORDS = ('visible', 'vis', 'visual', 'rgb', 'rgbd', 'bgr', 'eo')
_COLOUR_WORDS = ('color', 'colour')
_THERMAL_WORDS = ('thermal', 'infrared', 'ir', 'tir', 'lwir', 'mwir', 'longwave')
# Makers and models of thermal cameras, which say less than a word such as thermal; and
# makers of both kinds.
_THERMAL_MAKES = ('boson', 'lepton', 'seek', 'tau', 'tamarisk', 'optris', 'teax')
_MAKES_OF_BOTH = ('flir', 'xenics')
# Encodings with more bits than a visible camera usually sends.
_DEEP = ('mono16', '16UC1', '16SC1', '32SC1', '32FC1', '64FC1')
# Streams that are made from images, and the near-infrared ones of depth cameras.
_NO_SOURCE_WORDS = (
    *('fused', 'fusion', 'restored', 'depth', 'disparity', 'confidence', 'mask', 'masks'),
    *('weight', 'weights', 'label', 'labels', 'segmentation', 'detection', 'detections'),
    *('annotated', 'overlay', 'debug', 'heatmap', 'infra'),
)
_TRANSPORT = '/compressed'


def find_sources(
    topics: Mapping[str, Topic],
    visible: str | None = None,
    thermal: str | None = None,
    camera_info: str | None = None,
    others: Mapping[str, str] = {},
    encoding_of: Callable[[str], str] = lambda name: '',
) -> SourceTopics:
    """
    Return the topics to fuse: the given ones, and those that are unambiguous.

    A topic is recognised by the words in its name: those of its namespaces before those of its
    last part, and later ones before earlier ones. A plain camera image is the visible one. Derived
    images (``fused/...``, ``restored``, depth, masks, overlays) are never chosen unasked. A maker
    of cameras of both kinds counts as thermal, unless the images are a Bayer mosaic, or have 8
    bits while those of another camera have more. Of the raw and the compressed topic of a stream,
    the raw one is chosen, if it has messages.

    A given topic may lack ``/compressed`` and the first slash.

    :param topics: as :attr:`BagReader.topics`.
    :param others: further thermal streams, by their names.
    :param encoding_of: returns the encoding of the images of a topic, empty if unknown; see
        :func:`encodings_in`. Only called if a name leaves it open.
    :raises BagError: a topic is missing, empty or of another type, or there is not exactly one
        candidate; the message lists all topics.
    """
    images = {n: t for n, t in topics.items() if is_image(t)}
    given_visible = _given(topics, visible, 'visible')
    given_thermal = _given(topics, thermal, 'thermal')
    given_others = {key: _given(topics, name, key) or '' for key, name in others.items()}
    taken = {given_visible, given_thermal, *given_others.values()}
    taken_streams = {_stream(name) for name in taken if name is not None}
    free = [name for name in images if _stream(name) not in taken_streams]

    kinds: dict[str, list[str]] = {'visible': [], 'thermal': [], 'make': [], '': []}
    for name in free:
        kind = _kind(name)
        if kind is not None:
            kinds[kind].append(name)
    _sort_makes(kinds, encoding_of, given_thermal)
    found_thermal = given_thermal or _only(topics, kinds['thermal'], 'thermal')
    found_visible = given_visible or _only(topics, kinds['visible'] or kinds[''], 'visible')
    named = [('visible', found_visible), ('thermal', found_thermal), *given_others.items()]
    for number, (kind, name) in enumerate(named):
        if not topics[name].count:
            raise BagError(
                f'the {kind} topic {name} has no messages; the bag holds\n{topic_listing(topics)}'
            )
        for other_kind, other in named[:number]:
            if other == name:
                raise BagError(f'{name} cannot be both the {other_kind} and the {kind} topic')
    info = _camera_info(topics, found_visible, camera_info)
    thermal_info = _camera_info(topics, found_thermal, None)
    return SourceTopics(found_visible, found_thermal, given_others, info, thermal_info)


def _stream(name: str) -> str:
    return name.removesuffix(_TRANSPORT)


def _given(topics: Mapping[str, Topic], name: str | None, kind: str) -> str | None:
    """Return the topic for a name that the user gave."""
    if name is None:
        return None
    absolute = f'/{name.lstrip("/")}'
    names = [name, absolute, f'{absolute}{_TRANSPORT}']
    found = [topics[n] for n in names if n in topics]
    if not found:
        raise BagError(f'no {kind} topic {name} in the bag, which holds\n{topic_listing(topics)}')
    fitting = [topic for topic in found if is_image(topic)]
    if not fitting:
        problem = f'the {kind} topic {name} is of type {found[0].type}, but must be an image'
        advice = conversion_advice({found[0].name: found[0]})
        listing = f'the bag holds\n{topic_listing(topics)}'
        raise BagError('; '.join([problem, *advice, listing]))
    return next((topic for topic in fitting if topic.count), fitting[0]).name


def _only(topics: Mapping[str, Topic], names: list[str], kind: str) -> str:
    """Return the one stream among candidates."""
    if any(topics[name].count for name in names):
        names = [name for name in names if topics[name].count]
    streams: dict[str, list[str]] = {}
    for name in names:
        streams.setdefault(_stream(name), []).append(name)
    if len(streams) == 1:
        (stream,) = streams.values()
        # The raw topic is the shorter name.
        return min(stream, key=len)
    found = 'no topic' if not streams else f'more than one topic ({", ".join(sorted(streams))})'
    advice = '; '.join(conversion_advice(topics)) if not streams else ''
    raise BagError(
        f'{found} in the bag looks like the {kind} one: '
        + (advice or 'name them with --visible TOPIC --thermal TOPIC')
        + f'; the bag holds\n{topic_listing(topics)}'
    )


def _kind(name: str) -> str | None:
    """Return 'visible', 'thermal', 'make', '' if the name says nothing, None for no source."""
    *spaces, leaf = [_words(part) for part in _stream(name).strip('/').split('/')]
    everywhere = {word for words in (*spaces, leaf) for word in words}
    if not everywhere.isdisjoint(_NO_SOURCE_WORDS):
        return None
    for words in (*reversed(spaces), leaf):
        # A driver names its topic image_color whatever the camera sees.
        for word in (w for w in reversed(words) if words is not leaf or w not in _COLOUR_WORDS):
            if word in _THERMAL_WORDS or word.startswith(('thermal', 'infrared', 'lwir')):
                return 'thermal'
            if word in _VISIBLE_WORDS or word.startswith(_COLOUR_WORDS):
                return 'visible'
    if not everywhere.isdisjoint(_THERMAL_MAKES):
        return 'thermal'
    if not everywhere.isdisjoint(_MAKES_OF_BOTH):
        return 'make'
    return '' if everywhere.isdisjoint(_COLOUR_WORDS) else 'visible'


def _sort_makes(
    kinds: dict[str, list[str]], encoding_of: Callable[[str], str], given_thermal: str | None
) -> None:
    """Decide on streams whose name only gives a maker of both kinds."""
    makes = kinds.pop('make')
    if not makes:
        return
    encodings = {name: encoding_of(name) for name in (*makes, *kinds[''], *kinds['thermal'])}
    deep = [name for name, encoding in encodings.items() if encoding in _DEEP]
    for name in makes:
        encoding = encodings[name]
        others = [other for other in deep if _stream(other) != _stream(name)]
        is_shallow = bool(encoding) and encoding not in _DEEP
        is_visible = encoding.startswith('bayer_') or (is_shallow and bool(others))
        kinds['' if is_visible or given_thermal is not None else 'thermal'].append(name)
    if not kinds['thermal']:
        kinds['thermal'] = [name for name in kinds[''] if name in deep and name not in makes]
        kinds[''] = [name for name in kinds[''] if name not in kinds['thermal']]


def encodings_in(reader: BagReader) -> Callable[[str], str]:
    """Return the encoding of a topic's first image, as far as it can be read."""

    @cache
    def encoding_of(name: str) -> str:
        try:
            message = reader.decode(next(iter(reader.records([name]))))
        except (BagError, StopIteration):
            return ''
        raw = str(getattr(message, 'encoding', ''))
        if raw or not hasattr(message, 'format'):
            return raw
        # Such as 'mono16; png compressed ', or only 'jpeg', which has 8 bits.
        form = str(message.format)
        return form.partition(';')[0].strip() if ';' in form else '8UC1' * ('jp' in form)

    return encoding_of


def _words(text: str) -> list[str]:
    """Return the words of ``thermal_cam2`` or ``ThermalCamera`` in lower case."""
    found = re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+', text)
    return [word.lower() for word in found]


def _camera_info(topics: Mapping[str, Topic], stream: str, name: str | None) -> str | None:
    if name is None:
        sibling = f'{_stream(stream).rpartition("/")[0]}/camera_info'
        topic = topics.get(sibling)
        fits = topic is not None and topic.type == CAMERA_INFO_TYPE and topic.count > 0
        return sibling if fits else None
    topic = topics.get(name) or topics.get(f'/{name}')
    if topic is None:
        problem = 'is not in the bag'
    elif topic.type != CAMERA_INFO_TYPE:
        problem = f'is of type {topic.type}, not {CAMERA_INFO_TYPE}'
    elif not topic.count:
        problem = 'has no messages'
    else:
        return topic.name
    raise BagError(
        f'the camera_info topic {name} {problem}; the bag holds\n{topic_listing(topics)}'
    )
