/* Copyright 2026 The dig2dig Authors. SPDX-License-Identifier: Apache-2.0 */
'use strict';

(() => {
  /* Make an element: make('a', {href: '#x'}, 'text', child). */
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  /* The before/after slider. Reads the static list of frames, and takes its place. */
  function comparer(place, list) {
    const frames = [...list.children].map((item) => ({
      item,
      index: item.dataset.index,
      score: item.dataset.score,
      name: item.querySelector('h3').textContent,
      labels: [...item.querySelectorAll('.label')].map((label) => label.textContent),
      pictures: new Map([...item.querySelectorAll('img')].map((img) => [img.alt, img])),
      facts: item.querySelector('dl'),
    }));
    const wanted = ['visible', 'fused'];
    let current = frames[0];
    let split = 50;

    /* One choice out of several, as radio buttons: the browser brings the keyboard. */
    function radio(group, value, checked, ...content) {
      const input = make('input', {type: 'radio', name: group, value});
      input.checked = checked;
      return make('label', {}, input, make('span', {}, ...content));
    }

    const strip = make('fieldset', {class: 'strip'},
      make('legend', {class: 'unseen'}, 'Frame'));
    for (const frame of frames) {
      const picture = frame.pictures.get('fused') || [...frame.pictures.values()][0];
      const score = make('small', {}, frame.score);
      if (frame.labels.includes('worst')) score.className = 'worst';
      if (frame.labels.includes('best')) score.className = 'best';
      frame.thumb = radio('frame', frame.index, false,
        ...(picture ? [make('img', {src: picture.src, alt: '', decoding: 'async'})] : []),
        make('small', {class: 'name'}, frame.name), score);
      frame.thumb.title = [frame.name, ...frame.labels].join(', ');
      frame.thumb.firstChild.setAttribute('aria-label', frame.thumb.title);
      strip.append(frame.thumb);
    }

    const sides = ['left', 'right'].map((side) => {
      const image = make('img', {alt: '', draggable: 'false'});
      const tag = make('span', {class: 'tag'});
      return {
        image,
        tag,
        layer: make('div', {class: `layer ${side}`}, image, tag),
        select: make('select', {'aria-label': `${side} picture`}),
      };
    });
    const handle = make('div', {
      class: 'handle', role: 'slider', tabindex: '0', 'aria-orientation': 'horizontal',
      'aria-label': 'Divider between the pictures', 'aria-valuemin': '0', 'aria-valuemax': '100',
    }, make('span', {class: 'grip', 'aria-hidden': 'true'}, '\u2039 \u203a'));
    const stage = make('div', {class: 'stage'}, sides[1].layer, sides[0].layer, handle);
    const viewer = make('div', {class: 'viewer'},
      make('div', {class: 'sides'}, sides[0].select, sides[1].select),
      stage);

    const previous = make('button', {type: 'button', title: 'Previous frame'}, '\u2190 Previous');
    const next = make('button', {type: 'button', title: 'Next frame'}, 'Next \u2192');
    const position = make('span', {class: 'position', role: 'status'});
    const details = make('div', {class: 'details'});

    function setSplit(percent) {
      split = Math.min(100, Math.max(0, percent));
      const rounded = Math.round(split);
      stage.style.setProperty('--split', `${split}%`);
      handle.setAttribute('aria-valuenow', rounded);
      handle.setAttribute('aria-valuetext',
        `${rounded} % ${sides[0].select.value}, ${100 - rounded} % ${sides[1].select.value}`);
    }

    function showPictures() {
      const names = [...current.pictures.keys()];
      sides.forEach((side, number) => {
        const fallback = names[number ? names.length - 1 : 0] || '';
        const name = names.includes(wanted[number]) ? wanted[number] : fallback;
        side.select.replaceChildren(...names.map((each) => make('option', {}, each)));
        side.select.value = name;
        side.image.src = name ? current.pictures.get(name).src : '';
        side.image.alt = `${name} picture of ${current.name}`;
        side.tag.textContent = name;
      });
      setSplit(split);
    }

    function show(frame) {
      current = frame;
      frame.thumb.firstChild.checked = true;
      /* Only the strip may move, not the page. */
      const middle = frame.thumb.offsetLeft + frame.thumb.offsetWidth / 2;
      strip.scrollLeft = middle - strip.clientWidth / 2;
      position.textContent = `${frames.indexOf(frame) + 1} of ${frames.length}`;
      details.replaceChildren(
        make('h3', {}, frame.name),
        make('p', {class: 'labels'},
          ...frame.labels.flatMap((label, number) => [
            number ? ', ' : '', make('span', {class: `label ${label}`}, label)])),
        frame.facts);
      showPictures();
    }

    function step(by) {
      show(frames[(frames.indexOf(current) + by + frames.length) % frames.length]);
    }

    strip.addEventListener('change', (event) => {
      show(frames.find((frame) => frame.thumb.contains(event.target)));
    });
    sides.forEach((side, number) => side.select.addEventListener('change', () => {
      wanted[number] = side.select.value;
      showPictures();
    }));
    sides[1].image.addEventListener('load', ({target}) => {
      viewer.style.setProperty('--ratio', target.naturalWidth / target.naturalHeight);
    });
    previous.addEventListener('click', () => step(-1));
    next.addEventListener('click', () => step(1));

    function follow(event) {
      const box = stage.getBoundingClientRect();
      setSplit((event.clientX - box.left) / box.width * 100);
    }
    stage.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      handle.focus({preventScroll: true});
      /* A finger may be about to scroll the page: then the browser cancels the pointer. */
      if (event.pointerType !== 'touch') follow(event);
      event.preventDefault();
    });
    for (const type of ['pointermove', 'pointerup']) {
      stage.addEventListener(type, (event) => {
        if (stage.hasPointerCapture(event.pointerId)) follow(event);
      });
    }

    const moves = {
      ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10,
      Home: -Infinity, End: Infinity,
    };
    handle.addEventListener('keydown', (event) => {
      if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
      setSplit(Math.round(split) + moves[event.key] * (event.shiftKey ? 10 : 1));
      event.preventDefault();
    });
    list.hidden = true;
    place.replaceChildren(
      viewer,
      make('div', {class: 'aside'},
        make('div', {class: 'steps'}, previous, position, next),
        details),
      make('div', {class: 'choice'}, strip));
    show(current);
  }

  /* Leading number of a cell such as 1,234, 12 %, 0.91 ± 0.02 or +0.01 [-0.02, 0.04]. */
  const NUMBER = /^([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[+-]?\d+)?|[+-]?(?:inf|\u221e))(?=$|[\s%\u00b1[(*])/i;
  const MISSING = /^(|-|\u2013|\u2014|n\/a|nan|none|\?)$/i;

  /* The number that a cell shows; NaN where there is no value; nothing for any other text. */
  function numberIn(text) {
    const plain = text.trim().replace(/\u2212/g, '-').replace(/^\*+/, '');
    if (MISSING.test(plain)) return NaN;
    const found = NUMBER.exec(plain);
    if (!found || !found[1]) return undefined;
    return Number(found[1].replace(/,/g, '').replace(/inf|\u221e/i, 'Infinity'));
  }

  /* Let the headers of a table sort it: ascending, descending, as it was. */
  function sortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = make('button', {type: 'button', title: 'Sort'}, ...header.childNodes);
      if (!header.textContent) button.setAttribute('aria-label', `column ${column + 1}`);
      header.replaceChildren(button);
      button.addEventListener('click', () => {
        const order = {ascending: 'descending', descending: ''}[header.getAttribute('aria-sort')];
        const direction = order === undefined ? 'ascending' : order;
        headers.forEach((each) => each.removeAttribute('aria-sort'));
        if (direction) header.setAttribute('aria-sort', direction);
        body.append(...(direction ? sorted(original, column, direction) : original));
      });
    });
  }

  function sorted(rows, column, direction) {
    const sign = direction === 'ascending' ? 1 : -1;
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent]));
    const numbers = new Map(rows.map((row) => [row, numberIn(texts.get(row))]));
    const numeric = [...numbers.values()].every((number) => number !== undefined);
    return [...rows].sort((one, other) => {
      if (!numeric) {
        return sign * texts.get(one).localeCompare(texts.get(other), 'en', {numeric: true});
      }
      const [a, b] = [numbers.get(one), numbers.get(other)];
      /* Rows without a value stay at the end. */
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return a === b ? 0 : sign * (a < b ? -1 : 1);
    });
  }

  /* Tooltips also for the keyboard and for fingers: the browser's own are for the mouse alone. */
  function tooltips() {
    const tip = make('div', {class: 'tip', role: 'tooltip', id: 'tip'});
    let shown = null;
    document.body.append(tip);
    tip.hidden = true;
    for (const term of document.querySelectorAll('abbr[title]')) {
      term.dataset.about = term.title;
      term.removeAttribute('title');
      if (!term.closest('button')) term.tabIndex = 0;
    }

    function termOf({target}) {
      if (!(target instanceof Element)) return null;
      return target.closest('abbr[data-about]') ||
        (target.matches('button') ? target.querySelector('abbr[data-about]') : null);
    }

    function ownerOf(term) {
      return term.closest('button') || term;
    }

    function show(term) {
      if (shown && shown !== term) hide();
      shown = term;
      ownerOf(term).setAttribute('aria-describedby', 'tip');
      tip.textContent = term.dataset.about;
      tip.hidden = false;
      place();
    }

    function place() {
      const box = shown.getBoundingClientRect();
      const below = box.bottom + 6 + tip.offsetHeight <= innerHeight;
      tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - 6 - tip.offsetHeight)}px`;
    }

    function hide() {
      if (shown) ownerOf(shown).removeAttribute('aria-describedby');
      shown = null;
      tip.hidden = true;
    }

    for (const type of ['pointerover', 'focusin', 'click']) {
      document.addEventListener(type, (event) => {
        const term = termOf(event);
        if (term) show(term);
        /* What has the focus keeps its tooltip, also when the page scrolls below the mouse. */
        else if (shown && ownerOf(shown) !== document.activeElement) hide();
      });
    }
    document.addEventListener('focusout', hide);
    document.addEventListener('keydown', ({key}) => { if (key === 'Escape') hide(); });
    document.addEventListener('scroll', () => { if (shown) place(); },
      {capture: true, passive: true});
  }

  const list = document.getElementById('frame-list');
  document.querySelectorAll('.table table').forEach(sortable);
  tooltips();
  if (list) comparer(document.getElementById('comparer'), list);
})();
