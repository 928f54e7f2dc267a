import { encode } from 'uqr';

const NAMESPACE = 'http://www.w3.org/2000/svg';
/** ISO/IEC 18004: a quiet zone of four modules around the code. */
const QUIET = 4;

/** A QR code as SVG, always dark on white: many cameras do not read the inverse. */
export function qrCode(text: string, label: string): SVGSVGElement {
  const { data, size } = encode(text, { ecc: 'M', border: 0 });
  const side = size + 2 * QUIET;
  const svg = document.createElementNS(NAMESPACE, 'svg');
  svg.setAttribute('class', 'qr');
  svg.setAttribute('viewBox', `0 0 ${side} ${side}`);
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', label);
  svg.setAttribute('shape-rendering', 'crispEdges');
  let path = '';
  data.forEach((row, y) => {
    row.forEach((dark, x) => {
      if (dark) path += `M${x + QUIET} ${y + QUIET}h1v1h-1z`;
    });
  });
  const shapes: readonly (readonly [string, Record<string, string>])[] = [
    ['rect', { width: String(side), height: String(side), fill: '#fff' }],
    ['path', { d: path, fill: '#000' }],
  ];
  for (const [tag, attributes] of shapes) {
    const shape = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    svg.append(shape);
  }
  return svg;
}
