// See scoreboard.h.
#include "kernel/net/tcp/scoreboard.h"

#include <algorithm>

namespace husk::net::tcp {

u32 Scoreboard::add(SackBlock block) {
  size_t at = 0;
  while (at < ranges_.size() && ranges_[at].end < block.first) ++at;
  // Ranges [at, until) touch the block and become one with it.
  size_t until = at;
  u32 old = 0;
  SackBlock joined = block;
  for (; until < ranges_.size() && ranges_[until].first <= block.end; ++until) {
    old += ranges_[until].end - ranges_[until].first;
    if (ranges_[until].first < joined.first) joined.first = ranges_[until].first;
    if (ranges_[until].end > joined.end) joined.end = ranges_[until].end;
  }
  if (until == at) {
    if (ranges_.size() == kRangesMax || !ranges_.push_back(joined).ok()) return 0;
    for (size_t i = ranges_.size() - 1; i > at; --i) ranges_[i] = ranges_[i - 1];
  } else {
    for (size_t gone = until - at - 1; gone > 0; --gone) ranges_.erase(at + 1);
  }
  ranges_[at] = joined;
  u32 gained = joined.end - joined.first - old;
  sacked_ += gained;
  return gained;
}

void Scoreboard::advance(SeqNum una) {
  while (!ranges_.empty() && ranges_[0].first < una) {
    SackBlock& first = ranges_[0];
    SeqNum until = first.end < una ? first.end : una;
    sacked_ -= until - first.first;
    first.first = until;
    if (first.first == first.end) ranges_.erase(0);
  }
}

void Scoreboard::clear() {
  ranges_ = {};
  sacked_ = 0;
}

SeqNum Scoreboard::lost_below(SeqNum una, u32 mss) const {
  u32 above = 0, count = 0;
  for (size_t i = ranges_.size(); i > 0; --i) {
    const SackBlock& range = ranges_[i - 1];
    above += range.end - range.first;
    if (++count >= kDuplicateThreshold || above > (kDuplicateThreshold - 1) * mss) return range.first;
  }
  return una;
}

SackBlock Scoreboard::gap(SeqNum from, SeqNum end) const {
  for (const SackBlock& range : ranges_) {
    if (range.end <= from) continue;
    if (range.first > from) return {from, std::min(range.first, end)};
    from = range.end;
    if (from >= end) return {end, end};
  }
  return {from, end < from ? from : end};
}

u32 Scoreboard::missing(SeqNum from, SeqNum end) const {
  if (end <= from) return 0;
  u32 bytes = end - from;
  for (const SackBlock& range : ranges_) {
    SeqNum first = std::max(range.first, from), last = std::min(range.end, end);
    if (first < last) bytes -= last - first;
  }
  return bytes;
}

}  // namespace husk::net::tcp
