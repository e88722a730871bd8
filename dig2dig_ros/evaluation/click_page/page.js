/* Copyright 2026 The dig2dig Authors. SPDX-License-Identifier: Apache-2.0 */
'use strict';

(() => {
  const ZOOM = 5;
  const LEAST = 6;
  const SOURCES = ['visible', 'thermal'];
  const data = JSON.parse(document.getElementById('data').textContent);
  const find = (id) => document.getElementById(id);

  /* One for each source: element, image, magnifier, size in pixels as the camera sent it. */
  const panes = SOURCES.map((source, number) => {
    const element = find(source);
    const pane = {
      source,
      element,
      stage: element.querySelector('.stage'),
      image: element.querySelector('img'),
      loupe: element.querySelector('canvas'),
      size: data.sizes[number],
    };
    element.querySelector('figcaption').textContent = `${source}, ${pane.size.join('×')} pixels`;
    return pane;
  });

  const points = []; /* {frame, visible: [x, y], thermal: [x, y]} */
  let open = null; /* the same with one of the two */
  let last = null; /* [point, source] that was set last */
  let frame = 0;

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  /* Pixels of the image, centres at integers. */
  function pixel(pane, event) {
    const box = pane.stage.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return at.map((part, axis) => limited(pane, axis, part * pane.size[axis] - 0.5));
  }

  function limited(pane, axis, value) {
    const inside = Math.min(Math.max(value, 0), pane.size[axis] - 1);
    return Math.round(inside * 10) / 10;
  }

  function place(pane, at) {
    if (!open || (open[pane.source] && open.frame !== frame)) open = {frame};
    open[pane.source] = at;
    last = [open, pane.source];
    if (SOURCES.every((source) => open[source])) {
      points.push(open);
      open = null;
    }
    draw();
  }

  function undo() {
    if (open) open = null;
    else points.pop();
    last = null;
    draw();
  }

  function remove(point) {
    points.splice(points.indexOf(point), 1);
    last = null;
    draw();
  }

  function show(number) {
    /* A point is of one frame. */
    if (number !== frame) open = null;
    frame = number;
    panes.forEach((pane, index) => { pane.image.src = data.pairs[frame].images[index]; });
    draw();
  }

  function draw() {
    for (const pane of panes) {
      pane.stage.querySelectorAll('.mark').forEach((mark) => mark.remove());
      [...points, ...(open ? [open] : [])].forEach((point, number) => {
        if (point.frame !== frame || !point[pane.source]) return;
        const mark = make('div', {class: point === open ? 'mark open' : 'mark'},
          make('span', {}, String(number + 1)));
        point[pane.source].forEach((value, axis) => {
          const part = (value + 0.5) / pane.size[axis] * 100;
          mark.style[axis ? 'top' : 'left'] = `${part}%`;
        });
        pane.stage.append(mark);
      });
      pane.element.classList.toggle('wanted', open ? !open[pane.source] : pane === panes[0]);
    }
    const number = points.length + 1;
    const missing = open && SOURCES.find((source) => !open[source]);
    const more = points.length < 4 ? `${4 - points.length} more needed`
      : points.length < LEAST ? 'enough to start with; more show how good they are'
        : 'enough; more make it better';
    find('status').textContent = open
      ? `Point ${number}: now click the same point in the ${missing} image`
      : `Point ${number}: click a point in the visible image (${more})`;
    find('undo').disabled = !open && !points.length;
    find('previous').disabled = find('next').disabled = data.pairs.length < 2;
    find('frame').replaceChildren(...data.pairs.map((pair, index) => {
      const count = points.filter((point) => point.frame === index).length;
      const marks = count ? `, ${count} point${count > 1 ? 's' : ''}` : '';
      return make('option', {value: index}, `${index + 1}: ${pair.name}${marks}`);
    }));
    find('frame').value = frame;
    find('points').replaceChildren(...points.map((point, index) => {
      const button = make('button', {type: 'button', 'aria-label': `Remove point ${index + 1}`}, 'Remove');
      button.addEventListener('click', () => remove(point));
      const cells = [index + 1, point.frame + 1, point.visible.join(', '), point.thermal.join(', ')];
      return make('tr', {}, ...cells.map((cell) => make('td', {}, String(cell))), make('td', {}, button));
    }));
    find('text').value = text();
    find('copy').disabled = find('save').disabled = !points.length;
    find('done').textContent = '';
  }

  function text() {
    /* JSON strings are YAML, and keep whatever a name holds on its line. */
    const lines = points.map((point) => {
      const values = [...point.visible, ...point.thermal].join(', ');
      return `- [${values}]  # ${JSON.stringify(data.pairs[point.frame].name)}`;
    });
    return [
      '# Pixels, centres at integers: x and y in the visible image, x and y in the thermal image.',
      `visible_size: [${data.sizes[0].join(', ')}]`,
      `thermal_size: [${data.sizes[1].join(', ')}]`,
      points.length ? 'points:' : 'points: []',
      ...lines,
      '',
    ].join('\n');
  }

  /* The magnifier: above a finger, which hides what it points at. */
  function magnify(pane, event) {
    const {loupe, image, stage} = pane;
    const box = stage.getBoundingClientRect();
    const side = loupe.width;
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    const scale = image.naturalWidth / box.width;
    const span = side / ZOOM * scale;
    const context = loupe.getContext('2d');
    context.imageSmoothingEnabled = false;
    context.fillStyle = '#000';
    context.fillRect(0, 0, side, side);
    context.filter = pane === panes[0] ? `brightness(${find('brightness').value})` : 'none';
    context.drawImage(image, x * scale - span / 2, y * scale - span / 2, span, span, 0, 0, side, side);
    context.filter = 'none';
    context.strokeStyle = '#ffb300';
    context.beginPath();
    context.moveTo(side / 2, side * 0.3);
    context.lineTo(side / 2, side * 0.7);
    context.moveTo(side * 0.3, side / 2);
    context.lineTo(side * 0.7, side / 2);
    context.stroke();
    loupe.hidden = false;
    const above = box.top + y > side + 40;
    loupe.style.left = `${Math.min(Math.max(x - side / 2, 0), box.width - side)}px`;
    loupe.style.top = `${above ? y - side - 30 : y + 30}px`;
  }

  for (const pane of panes) {
    const {stage, loupe} = pane;
    let pressed = false;
    stage.addEventListener('pointerdown', (event) => {
      if (!event.isPrimary || event.button) return;
      event.preventDefault();
      pressed = true;
      stage.setPointerCapture(event.pointerId);
      magnify(pane, event);
    });
    stage.addEventListener('pointermove', (event) => {
      if (event.isPrimary && (pressed || event.pointerType === 'mouse')) magnify(pane, event);
    });
    stage.addEventListener('pointerup', (event) => {
      if (!event.isPrimary || !pressed) return;
      pressed = false;
      if (event.pointerType !== 'mouse') loupe.hidden = true;
      place(pane, pixel(pane, event));
    });
    stage.addEventListener('pointercancel', () => { pressed = false; loupe.hidden = true; });
    stage.addEventListener('pointerleave', () => { if (!pressed) loupe.hidden = true; });
  }

  function step(by) {
    show((frame + by + data.pairs.length) % data.pairs.length);
  }

  const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  document.addEventListener('keydown', (event) => {
    if (event.target.closest('select, input, textarea')) return;
    if (event.key === 'z' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      undo();
    } else if (ARROWS[event.key] && last && last[0].frame === frame) {
      event.preventDefault();
      const [point, source] = last;
      const pane = panes[SOURCES.indexOf(source)];
      point[source] = point[source].map(
        (value, axis) => limited(pane, axis, value + ARROWS[event.key][axis]));
      draw();
    }
  });

  find('undo').addEventListener('click', undo);
  find('previous').addEventListener('click', () => step(-1));
  find('next').addEventListener('click', () => step(1));
  find('frame').addEventListener('change', (event) => show(Number(event.target.value)));
  find('brightness').addEventListener('input', (event) => {
    panes[0].image.style.filter = `brightness(${event.target.value})`;
  });
  find('copy').addEventListener('click', async () => {
    let copied = false;
    try {
      await navigator.clipboard.writeText(find('text').value);
      copied = true;
    } catch {
      /* Not allowed, as in older browsers for files: by selection. */
      find('text').select();
      copied = document.execCommand('copy');
    }
    find('done').textContent = copied ? 'Copied' : 'Select the text and copy it';
  });
  find('save').addEventListener('click', () => {
    const address = URL.createObjectURL(new Blob([find('text').value], {type: 'text/yaml'}));
    make('a', {href: address, download: 'points.yaml'}).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    find('done').textContent = 'Saved where the browser saves files';
  });

  /* Marks are lost with the page. */
  window.addEventListener('beforeunload', (event) => { if (points.length) event.preventDefault(); });
  show(0);
})();
