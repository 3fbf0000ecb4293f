import jsQr from 'jsqr'

/** Each character is two modules, the upper and the lower one; lit is light. */
const LIT: Record<string, [boolean, boolean]> = {
  '█': [true, true],
  '▀': [true, false],
  '▄': [false, true],
  ' ': [false, false],
}
const PIXELS = 4

/** Reads a QR code as a camera would, from what a dark terminal shows; `invert`: from a light one. */
export function decodeQrText(text: string, { invert = false } = {}): string | undefined {
  const lines = text.split('\n').map((line) => [...line].map((character) => LIT[character]))
  const [columns, rows] = [lines[0]?.length ?? 0, lines.length * 2]
  const [width, height] = [columns * PIXELS, rows * PIXELS]
  const image = new Uint8ClampedArray(width * height * 4)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const row = Math.floor(y / PIXELS)
      const module = lines[row >> 1]?.[Math.floor(x / PIXELS)]
      if (!module) throw new Error(`no module at row ${row}: ${text}`)
      const light = module[row % 2] !== invert
      image.set(light ? [255, 255, 255, 255] : [0, 0, 0, 255], (y * width + x) * 4)
    }
  }
  return (jsQr as unknown as typeof jsQr.default)(image, width, height, { inversionAttempts: 'dontInvert' })?.data
}
