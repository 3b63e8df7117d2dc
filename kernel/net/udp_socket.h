// UDP and ping sockets, and the table that finds them by port.
#pragma once

#include "base/list.h"
#include "base/vec.h"
#include "kernel/net/stack.h"

namespace husk::net {
class StackState;
struct Received;
struct Interface;
struct Destination;
}  // namespace husk::net

namespace husk::net::udp {

enum class Kind : u8 { udp, ping };

// A received datagram: small ones are copied, others keep their packet.
struct Item : ListNode<> {
  Datagram about;
  u32 charge = 0;
  packet::PacketPtr packet;  // null: the bytes stand behind the item
  u8* bytes() { return reinterpret_cast<u8*>(this + 1); }
};

struct Membership {
  IpAddress group;
  u32 interface;
};

struct PortTag;
class SocketState final : public Socket, public ListNode<PortTag> {
 public:
  static constexpr u32 kMembershipsMax = 20;  // as Linux's igmp_max_memberships
  SocketState(StackState& stack, Kind kind, Family family) : stack_(&stack), kind_(kind), family_(family) { disconnect_ends(); }
  ~SocketState() override;
  void set_observer(SocketObserver* observer) override { observer_ = observer; }
  Result<void> bind(const Endpoint& local) override;
  Result<void> connect(const Endpoint& remote) override;
  Result<void> disconnect() override;
  Result<size_t> send(vfs::IoBuffer& from, const Endpoint* to, const Endpoint* source) override;
  Result<Datagram> receive(vfs::IoBuffer& to, Peek peek) override;
  Result<void> join(const IpAddress& group, u32 interface) override;
  Result<void> leave(const IpAddress& group, u32 interface) override;
  Result<void> shutdown(int how) override;
  void close() override;
  u32 events() override;
  int take_error() override;
  Endpoint local() const override { return local_; }
  Endpoint remote() const override { return remote_; }
  size_t readable_bytes() const override;
  size_t queued_bytes() const override { return queued_bytes_; }
  const Options& options() const override { return options_; }
  void set_options(const Options& options) override { options_ = options; }

  Kind kind() const { return kind_; }
  Family family() const { return family_; }
  // How well it fits a datagram; 0: not at all.
  u32 score(const Endpoint& from, const Endpoint& to) const;
  bool wants_group(const IpAddress& group, u32 interface) const;
  // The upper layer's message begins at `at`. False: no room.
  bool queue_copy(const Received& received, const Endpoint& from, const Endpoint& to, const packet::Packet& packet, u32 at, u32 size);
  void queue(const Received& received, const Endpoint& from, const Endpoint& to, packet::PacketPtr packet, u32 at, u32 size);
  void set_error(int error, bool hard);
  void room_again();
  void detach();  // the stack goes

 private:
  friend class Table;
  Result<IpAddress> source_for(const Endpoint* source, const Destination& to) const;
  Result<packet::PacketPtr> copy_in(vfs::IoBuffer& from, size_t size);
  Result<void> send_udp(Destination& to, const IpAddress& source, const Endpoint& remote, packet::PacketPtr packet);
  Result<void> send_echo(Destination& to, const IpAddress& source, packet::PacketPtr packet);
  Result<Endpoint> target(const Endpoint* to);
  Result<Destination*> destination(const Endpoint& remote, const Endpoint* source);
  void enqueue(Item* item);
  Item* make_item(const Received& received, const Endpoint& from, const Endpoint& to, u32 size, u32 inline_bytes);
  void drop_queue();
  void disconnect_ends();
  bool may_bind(const Endpoint& local) const;
  void loop_back(Destination& to, const IpAddress& source, const packet::Packet& packet);
  void notify(u32 events) {
    if (observer_ != nullptr) observer_->socket_changed(events);
  }

  StackState* stack_;  // null: closed
  Kind kind_;
  Family family_;
  Options options_;
  SocketObserver* observer_ = nullptr;
  Endpoint local_, remote_;
  bool connected_ = false, bound_address_ = false, read_shut_ = false, write_shut_ = false, wants_room_ = false;
  int error_ = 0;
  List<Item> queue_;
  u32 queued_charge_ = 0;
  size_t queued_bytes_ = 0;
  Vec<Membership> memberships_;
};

class Table {
 public:
  Table(StackState& stack, u32 memory_limit) : stack_(stack), memory_limit_(memory_limit) {}
  ~Table();
  void add(SocketState& socket) { bucket(socket.kind(), 0).push_back(&socket); }
  // Gives it this local port; 0: chosen at random (RFC 6056 §3.3.1).
  Result<void> bind(SocketState& socket, u16 port);
  bool input(const Received& received, const Endpoint& from, const Endpoint& to, packet::PacketPtr packet, u32 at, u32 size, Kind kind);
  SocketState* find(Kind kind, const Endpoint& from, const Endpoint& to);
  bool input_group(const Received& received, const Endpoint& from, const Endpoint& to, const packet::Packet& packet, u32 at, u32 size);
  void room_again();
  void visit(Stack::UdpVisitor& visitor) const;
  bool charge(u32 bytes) {
    if (memory_ + bytes > memory_limit_) return false;
    memory_ += bytes;
    return true;
  }
  void discharge(u32 bytes) { memory_ -= bytes; }
  u32 memory() const { return memory_; }
  bool waiting_for_room = false;

 private:
  static constexpr u32 kBuckets = 64;
  using Bucket = List<SocketState, PortTag>;
  Bucket& bucket(Kind kind, u16 port) { return buckets_[static_cast<u32>(kind) * kBuckets + port % kBuckets]; }
  bool conflicts(const SocketState& socket, u16 port);
  StackState& stack_;
  u32 memory_limit_, memory_ = 0;
  mutable Bucket buckets_[2 * kBuckets];  // unbound ones have port 0
};

}  // namespace husk::net::udp
