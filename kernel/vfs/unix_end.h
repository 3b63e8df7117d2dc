// The inside of AF_UNIX sockets: ends, which outlive their files, and the packets between them. For unix_*.cc only.
//
// A packet waits at the end that will receive it, and counts against the one that sent it until it is taken (SO_SNDBUF). An end whose file is
// closed (`dead`) stays while somebody is connected to it, so that the other still knows its name. Kernel context, one vCPU: no locks.
#pragma once

#include "kernel/vfs/unix_socket.h"

namespace husk::vfs {

class UnixEnd;

struct UnixName : RefCounted<UnixName> {
  SocketAddress address;
  Ref<Inode> inode;  // null: an abstract name
};

struct UnixPacketTag;
struct UnixPacket : ListNode<UnixPacketTag> {
  static constexpr size_t kCost = 768;      // of one packet besides its bytes, against SO_SNDBUF: about Linux's, so that about as many fit
  static UnixPacket* create(size_t size);   // null: no memory
  static void destroy(UnixPacket* packet);  // never deep: packets of sockets that go with it are destroyed after it
  u8* bytes() { return reinterpret_cast<u8*>(this + 1); }
  size_t left() const { return size - taken; }

  size_t size = 0, taken = 0, cost = 0;
  Ref<UnixEnd> sender;
  Ref<UnixName> from;
  SocketCredentials credentials{0, 65534, 65534};  // "nobody" if neither side wanted them
  Vec<Ref<File>> files;
  UnixPacket* next_doomed = nullptr;
};

struct UnixEmbryoTag;
class UnixEnd : public RefCounted<UnixEnd>, public ListNode<UnixEmbryoTag> {
 public:
  enum class State : u8 { closed, listening, connected };
  static constexpr u32 kSendLimit = 212992;  // net.core.wmem_default
  explicit UnixEnd(int socket_type) : type(socket_type) {}

  static void connect(const Ref<UnixEnd>& a, const Ref<UnixEnd>& b);
  // The file is gone, or (embryo) the listener before anybody accepted.
  void release(bool embryo);
  void disconnect();  // a datagram socket's peer is forgotten, and what came from it
  // Another end will not send here until there is room (datagrams by name).
  bool is_full() const { return packet_count > backlog; }
  bool refuses(const UnixEnd& other) const { return peer && peer.get() != &other; }  // connected to somebody else
  bool writable() const { return state != State::listening && used * 4 <= send_limit; }
  void add(UnixPacket* packet, UnixEnd& from);
  void remove(UnixPacket& packet);
  void changed() { queue.wake_all(kIn | kOut | kHup | kErr | kReadHup); }

  const int type;
  State state = State::closed;
  bool dead = false, read_closed = false, write_closed = false, wants_credentials = false;
  bool has_file = false;
  int error = 0;     // SO_ERROR
  u32 backlog = 10;  // listeners: connections; others: net.unix.max_dgram_qlen
  u32 embryo_count = 0, packet_count = 0;
  u64 used = 0, send_limit = kSendLimit;  // bytes of packets that were sent from here and are not taken yet
  Ref<UnixEnd> peer;
  Ref<UnixName> name;
  SocketCredentials peer_credentials{0, ~0u, ~0u};
  List<UnixPacket, UnixPacketTag> packets;
  List<UnixEnd, UnixEmbryoTag> embryos;  // of a listener: connected, not accepted; each holds a reference
  sched::WaitQueue queue;                // changes here
  sched::WaitQueue room;                 // whoever waits for room in `packets` or `embryos`
  UnixEnd* next_bound = nullptr;         // unix_names.cc
  bool bound = false;
};

// The names in use; an end is in the table while its file is open. Abstract names of different types are different names.
UnixEnd* find_bound(const Inode& inode);
UnixEnd* find_bound(const SocketAddress& name, int type);
void add_bound(UnixEnd& end);
void remove_bound(UnixEnd& end);

// A socket's address: checked, and a path's length made what Linux shows. EINVAL
Result<SocketAddress> unix_address(const SocketAddress& given);
constexpr u32 kUnixPathOffset = 2, kUnixPathMax = 108, kUnixFamily = 1;
inline bool is_abstract(const SocketAddress& address) { return address.bytes[kUnixPathOffset] == '\0'; }
inline std::string_view path_of(const SocketAddress& address) {
  return {reinterpret_cast<const char*>(address.bytes) + kUnixPathOffset, address.size - kUnixPathOffset - 1};
}

class UnixSocket final : public Socket {
 public:
  UnixSocket(UnixEnvironment& environment, Ref<UnixEnd> end, int socket_protocol, u32 file_flags);
  ~UnixSocket() override;
  UnixEnd& end() { return *end_; }
  const Ref<UnixEnd>& end_ref() { return end_; }

  Result<void> bind(const SocketAddress& address) override;
  Result<void> listen(int backlog) override;
  Result<Ref<Socket>> accept(SocketAddress* peer, u32 file_flags) override;
  Result<void> connect(const SocketAddress& address) override;
  Result<SocketAddress> name() override;
  Result<SocketAddress> peer_name() override;
  Result<size_t> send(SocketMessage& message) override;
  Result<size_t> receive(SocketMessage& message) override;
  Result<void> shutdown(int how) override;
  Result<size_t> get_option(int level, int option, std::span<u8> out) override;
  Result<void> set_option(int level, int option, std::span<const u8> value) override;
  Result<size_t> bytes_available() override;
  Result<i64> socket_ioctl(u32 request, u64 argument) override;
  u32 poll_events() override;
  sched::WaitQueue* wait_queue() override { return &end_->queue; }

 private:
  // Tells this socket's pollers when the peer of a datagram socket has room again.
  struct RoomWatcher final : sched::Waiter {
    explicit RoomWatcher(UnixEnd& watching_end) : end(watching_end) {}
    ~RoomWatcher() { unlink(); }
    void notify(u32) override {
      unlink();
      end.queue.wake_all(kOut);
    }
    UnixEnd& end;
  };

  bool is_packets() const { return type != kSocketStream; }
  Result<void> autobind();
  Result<Ref<UnixEnd>> find(const SocketAddress& address);
  Result<void> connect_datagram(const SocketAddress& address);
  Result<Ref<UnixEnd>> destination(const SocketMessage& message);
  Result<void> wait_for_room(u32 message_flags, u64 deadline_ns);
  Result<size_t> deliver(SocketMessage& message, UnixEnd& to, size_t size);
  Result<size_t> send_bytes(SocketMessage& message);
  Result<size_t> send_packet(SocketMessage& message);
  Result<UnixPacket*> next_packet(u32 message_flags, u64 deadline_ns);
  void give_ancillary(UnixPacket& packet, SocketMessage& message);
  Result<size_t> receive_bytes(SocketMessage& message);
  Result<size_t> receive_packet(SocketMessage& message);

  UnixEnvironment& environment_;
  Ref<UnixEnd> end_;
  RoomWatcher room_watcher_;
  u32 options_ = 0;  // SOL_SOCKET flags that mean nothing here, kept to be shown
  u32 receive_limit_ = UnixEnd::kSendLimit;
};

}  // namespace husk::vfs
