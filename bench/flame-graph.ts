import type { Frame } from './profile.ts'

const WIDTH = 1600
const ROW = 16
/** Narrower ones are left out: nobody could see them. */
const LEAST_WIDTH = 1
const LETTER = 6.2

/** A flame graph as SVG: a frame is as wide as its time, what it called is above it. A pointer over it shows its name. */
export function flameGraph(root: Frame, title: string): string {
  const depth = depthOf(root)
  const height = (depth + 2) * ROW
  const boxes: string[] = []

  function draw(frame: Frame, x: number, level: number): void {
    const width = widthOf(frame, root)
    const y = height - (level + 1) * ROW
    const share = ((frame.totalUs / root.totalUs) * 100).toFixed(1)
    const room = Math.floor(width / LETTER)
    const label = room < 4 ? '' : inXml(frame.name.slice(0, room))
    boxes.push(
      `<g><title>${inXml(frame.name)} ${share} %</title><rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${ROW - 1}" fill="${colourOf(frame.from)}"/>${label && `<text x="${(x + 2).toFixed(1)}" y="${y + 11}">${label}</text>`}</g>`,
    )
    let left = x
    for (const child of visible(frame, root)) {
      draw(child, left, level + 1)
      left += widthOf(child, root)
    }
  }
  draw(root, 0, 0)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="monospace" font-size="10"><title>${inXml(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/><text x="4" y="12">${inXml(title)}</text>`,
    ...boxes,
    '</svg>\n',
  ].join('\n')
}

const widthOf = (frame: Frame, root: Frame): number => (frame.totalUs / root.totalUs) * WIDTH

const visible = (frame: Frame, root: Frame): Frame[] =>
  [...frame.children.values()]
    .filter((child) => widthOf(child, root) >= LEAST_WIDTH)
    .toSorted((a, b) => b.totalUs - a.totalUs)

function depthOf(root: Frame): number {
  const deepest = (frame: Frame): number => 1 + Math.max(0, ...visible(frame, root).map(deepest))
  return deepest(root)
}

/** The same origin has the same colour in every graph. */
function colourOf(from: string): string {
  let hash = 0
  for (const letter of from) hash = (hash * 31 + (letter.codePointAt(0) as number)) % 360
  return `hsl(${hash} 60% 75%)`
}

const inXml = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
