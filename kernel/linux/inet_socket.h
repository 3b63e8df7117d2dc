// What TCP and UDP sockets share: addresses as the program writes them (sockaddr_in, sockaddr_in6), waiting, and options.
//
// Options are one table (inet_options.cc): a row says where the value lives in the options of net's socket, or that it is only remembered.
#pragma once
#undef linux

#include "kernel/linux/inet.h"
#include "kernel/linux/network.h"

namespace husk::linux {

constexpr int kInet = 2, kInet6 = 10;
enum MessageFlags : u32 {
  kMessageOutOfBand = 0x1,
  kMessagePeek = 0x2,
  kMessageControlCut = 0x8,
  kMessageTruncated = 0x20,
  kMessageDontWait = 0x40,
  kMessageWaitAll = 0x100,
  kMessageErrorQueue = 0x2000,
  kMessageMore = 0x8000,
  kMessageFastOpen = 0x20000000,
};
enum Level : int { kLevelIp = 0, kLevelSocket = 1, kLevelTcp = 6, kLevelUdp = 17, kLevelIp6 = 41 };

enum class AddressUse : u8 { bind, connect, send };
// EINVAL: too short; EAFNOSUPPORT: another family. Any-address to talk to is this machine (as on Linux).
Result<net::Endpoint> read_address(int domain, const vfs::SocketAddress& address, AddressUse use);
vfs::SocketAddress write_address(int domain, const net::Endpoint& endpoint);

class InetSocket : public vfs::Socket, public net::SocketObserver {
 public:
  using Socket::Socket;
  void socket_changed(u32 events) final { listening() ? queue_.wake_one(events) : queue_.wake_all(events); }
  sched::WaitQueue* wait_queue() final { return &queue_; }
  Result<size_t> get_option(int level, int option, std::span<u8> out) final;
  Result<void> set_option(int level, int option, std::span<const u8> value) final;
  Result<vfs::SocketAddress> name() final { return write_address(domain, local()); }
  Result<vfs::SocketAddress> peer_name() final;

 protected:
  union Options {
    Options() {}
    net::tcp::Options tcp;
    net::udp::Options udp;
  };
  virtual void load(Options& options) const = 0;
  virtual void save(const Options& options) = 0;
  virtual net::Endpoint local() const = 0;
  virtual net::Endpoint remote() const = 0;  // port 0: not connected
  virtual int take_error() = 0;
  virtual bool listening() const { return false; }
  // Those of TCP that are no plain numbers. ENOPROTOOPT.
  virtual Result<size_t> get_special(int level, int option, std::span<u8> out);
  virtual Result<void> set_special(int level, int option, std::span<const u8> value);
  virtual Result<void> change_membership(const net::IpAddress& group, u32 interface, bool join);

  // The address to bind, connect or send to, with what the options say about it.
  Result<net::Endpoint> endpoint(const vfs::SocketAddress& address, AddressUse use) const;
  // An option that is only remembered, or what it is before it is set.
  int number(int level, int option, int initial = 0) const;
  bool has_remembered() const { return !remembered_.empty(); }
  // Repeats what gives EAGAIN, as long as the caller wants to wait.
  template <typename Attempt>
  auto wait_until_done(Attempt attempt, u32 message_flags, u64 timeout_ns) -> decltype(attempt()) {
    for (Patience patience{message_flags, timeout_ns};;) {
      auto result = attempt();
      if (result.ok() || result.error() != Error(EAGAIN)) return result;
      TRY(wait_for_change(patience));
    }
  }
  bool is_stream() const { return type == 1; }
  bool v6_only() const;
  sched::WaitQueue queue_;

 private:
  struct Patience {
    u32 message_flags;
    u64 timeout_ns, deadline_ns = 0;  // deadline 0: the first attempt
  };
  Result<void> wait_for_change(Patience& patience);
  struct Remembered {
    u16 key;
    int value;
  };
  struct Row;
  static const Row kRows[];
  const Row* row(int level, int option) const;  // null: this socket has no such option, or it is none of the table
  int get_number(const Row& row) const;
  Result<void> set_number(const Row& row, int value);
  Result<void> set_buffer(int option, u64 size);
  Result<void> set_membership(int level, int option, std::span<const u8> value);
  Result<void> set_multicast_interface(int level, std::span<const u8> value);
  Result<void> set_device(std::span<const u8> value);

  Vec<Remembered> remembered_;
  u32 bound_interface_ = 0, multicast_interface_ = 0;
  u32 multicast_source_ = 0;  // IP_MULTICAST_IF, to be read back
};

Result<Ref<vfs::Socket>> make_stream_socket(int domain, u32 file_flags);
Result<Ref<vfs::Socket>> make_datagram_socket(int domain, int protocol, u32 file_flags);

// --- interfaces (inet_interfaces.cc) ----------------------------------------------------------------------------------------------
Result<net::InterfaceStatus> interface_at(u32 index);  // ENODEV
Result<net::InterfaceStatus> interface_named(std::string_view name);
Result<u32> interface_with(const net::IpAddress& address);

// Values of options and ioctls: copies out what there is room for.
template <typename T>
size_t put_value(std::span<u8> out, const T& value) {
  memcpy(out.data(), &value, out.size() < sizeof(T) ? out.size() : sizeof(T));
  return sizeof(T);
}
template <typename T>
Result<T> take_value(std::span<const u8> bytes) {
  T value;
  if (bytes.size() < sizeof(T)) return Error(EINVAL);
  memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

}  // namespace husk::linux
