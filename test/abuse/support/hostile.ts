/** Names that every object of JavaScript has a member of; those that are ids as well are legal, and mean nothing special. */
export const MEMBERS = [
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'valueOf',
  'prototype',
  '__defineGetter__',
]

export const SQL = [
  "'",
  "' or '1'='1",
  "'; drop table clients; --",
  "x') returning *; --",
  '"; select pg_sleep(5); --',
  '$1',
  '$$',
  '\\',
  "\\'; --",
  '%',
  '_',
  '{a,"b"}',
  '(1,2)',
  'null',
  "E'\\x27'",
  '/* */',
]

/** What would change a topic, a path or a line of a log if it were put into one as it is. */
export const INJECTED = [
  '+',
  '#',
  'a/b',
  '/',
  '$SYS',
  '$share/g/x',
  '..',
  '../victim',
  'victim~reports',
  'a\u0000b',
  'a\r\nX-Injected: 1',
  '\u001b[2J',
  'a\u202eb',
  'a\u200bb',
  'vict\u0456m',
  '\uff36ictim',
  'e\u0301',
  '\ufeffvictim',
  '\u{1f600}',
  '%2e%2e%2f',
  '%00',
  'x'.repeat(65),
  'x'.repeat(5000),
  '',
  ' ',
]

/** As JSON: halves of a pair, which no text of UTF-8 has. */
export const UNPAIRED = ['\ud800', 'a\udc00b']
