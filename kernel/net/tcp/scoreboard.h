// What the peer has told by SACK that it holds (RFC 2018, RFC 6675): ranges above SND.UNA, ascending, with gaps between them.
#pragma once

#include "base/vec.h"
#include "kernel/net/tcp/segment.h"

namespace husk::net::tcp {

class Scoreboard {
 public:
  static constexpr u32 kRangesMax = 128;  // what is told beyond it is forgotten: costs a retransmission
  static constexpr u32 kDuplicateThreshold = 3;
  bool empty() const { return ranges_.empty(); }
  u32 sacked() const { return sacked_; }
  SeqNum highest() const { return ranges_[ranges_.size() - 1].end; }  // if not empty
  // Gives how many bytes are newly held.
  u32 add(SackBlock block);
  void advance(SeqNum una);
  void clear();
  // RFC 6675 §4 IsLost: what is below this and not held is lost; `una` if nothing is.
  SeqNum lost_below(SeqNum una, u32 mss) const;
  // The first gap at or after `from` and below `end`, cut to it; empty if there is none.
  SackBlock gap(SeqNum from, SeqNum end) const;
  // Bytes of [from, end) that are not held.
  u32 missing(SeqNum from, SeqNum end) const;
  SeqNum first() const { return ranges_[0].first; }  // if not empty

 private:
  Vec<SackBlock> ranges_;
  u32 sacked_ = 0;
};

}  // namespace husk::net::tcp
