// A device around a device that makes trouble of its own, whatever the line does: refuses, loses, damages, repeats. The idea is smoltcp's.
#pragma once

#include "tests/net/lan.h"
#include "tests/net/nic.h"
#include "wire/ethernet.h"

namespace husk::simulation {

struct Faults {    // per million
  u32 refuse = 0;  // transmit() gives false; there is room again at once
  u32 lose_sent = 0, lose_received = 0, repeat_received = 0, damage_received = 0;
  u32 shorten_received = 0;  // cut off at any byte
  u32 empty_received = 0;    // nothing now, though there is something
};

class FaultyDevice final : public packet::NetDevice {
 public:
  FaultyDevice(packet::NetDevice& inner, const Faults& faults, u64 seed) : inner_(inner), faults(faults), random_(seed) {}
  const Properties& properties() const override { return inner_.properties(); }
  packet::PacketPtr receive() override {
    if (!waiting_.empty()) {
      Frame frame = std::move(waiting_.front());
      waiting_.pop_front();
      return packet_of(frame, 0);
    }
    if (random_.chance(faults.empty_received)) return nullptr;
    packet::PacketPtr packet = inner_.receive();
    if (!packet || random_.chance(faults.lose_received)) return nullptr;
    Frame frame = frame_of(*packet);
    if (random_.chance(faults.repeat_received)) waiting_.push_back(frame);
    bool unprotected = frame.checksum != packet::Checksum::unknown || load_type(frame) == wire::kEtherTypeArp;
    bool damaged = !unprotected && random_.chance(faults.damage_received);
    if (damaged) frame.bytes[random_.below(frame.bytes.size())] ^= static_cast<u8>(1u << random_.below(8));
    bool shortened = random_.chance(faults.shorten_received);
    if (shortened) frame.bytes.resize(random_.below(frame.bytes.size()) + 1);
    return damaged || shortened ? packet_of(frame, 0) : std::move(packet);
  }
  bool transmit(packet::PacketPtr& packet) override {
    if (random_.chance(faults.refuse)) {
      refused_ = wake_ = true;
      return false;
    }
    if (!random_.chance(faults.lose_sent)) return inner_.transmit(packet);
    packet.reset();
    return true;
  }
  void flush() override { inner_.flush(); }
  bool room_again() override { return std::exchange(refused_, false) || inner_.room_again(); }
  Statistics statistics() const override { return inner_.statistics(); }
  // Once after a refusal, and while it holds something back: the stack should be run again, as if an interrupt had come.
  bool take_wake() { return std::exchange(wake_, false) || !waiting_.empty(); }

 private:
  static u16 load_type(const Frame& frame) { return frame.bytes.size() < 14 ? u16{0} : wire::load_be16(&frame.bytes[12]); }
  packet::NetDevice& inner_;

 public:
  Faults faults;

 private:
  Random random_;
  std::deque<Frame> waiting_;
  bool refused_ = false, wake_ = false;
};

}  // namespace husk::simulation
