/** Whether a valid filter has a wildcard: these letters are nothing else in it [MQTT-4.7.1]. */
export const hasWildcard = (filter: string): boolean => /[+#]/.test(filter)

/** The highest QoS of the filters that match a topic; undefined if none does. */
export function highestQos(filters: ReadonlyMap<string, number>, topic: string): number | undefined {
  let highest = filters.get(topic)
  for (const [filter, qos] of filters) {
    if (qos > (highest ?? -1) && hasWildcard(filter) && topicMatches(filter, topic)) highest = qos
  }
  return highest
}

/** Whether a topic matches a valid filter [MQTT-4.7]. `#` also matches the parent level [MQTT-4.7.1.2]. */
export function topicMatches(filter: string, topic: string): boolean {
  const filterLevels = filter.split('/')
  const topicLevels = topic.split('/')
  // [MQTT-4.7.2-1]: a leading wildcard does not see `$` topics.
  if (topic.startsWith('$') && (filterLevels[0] === '+' || filterLevels[0] === '#')) return false
  for (const [index, level] of filterLevels.entries()) {
    if (level === '#') return true
    if (index >= topicLevels.length) return false
    if (level !== '+' && level !== topicLevels[index]) return false
  }
  return filterLevels.length === topicLevels.length
}
