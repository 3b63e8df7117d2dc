// TCP sockets as open files: what blocks, and what the calls say in the states of a connection, is here; TCP is in kernel/net/tcp. tcp(7).
//
// A socket is used again after a failed connect or a disconnect (AF_UNSPEC), as on Linux: with a new socket of TCP underneath.
#undef linux
#include <asm-generic/ioctls.h>
#include <linux/sockios.h>
#include <linux/tcp.h>

#include <algorithm>

#include "kernel/linux/inet_socket.h"
#include "kernel/linux/inet_stream.h"
#include "kernel/linux/network_info.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

using net::tcp::State;

constexpr u32 kBacklogMax = 4096;  // net.core.somaxconn
constexpr u64 kSecond = time::kNsPerSecond;
constexpr char kCongestionControl[16] = "reno";

struct StreamTag;
class InetStream final : public InetSocket, public ListNode<StreamTag> {
 public:
  InetStream(int domain, u32 file_flags, Ref<net::tcp::Socket> socket);
  ~InetStream() override;
  u32 poll_events() override;
  Result<void> bind(const vfs::SocketAddress& address) override;
  Result<void> listen(int backlog) override;
  Result<Ref<Socket>> accept(vfs::SocketAddress* peer, u32 file_flags) override;
  Result<void> connect(const vfs::SocketAddress& address) override;
  Result<size_t> send(vfs::SocketMessage& message) override;
  Result<size_t> receive(vfs::SocketMessage& message) override;
  Result<void> shutdown(int how) override;
  Result<size_t> bytes_available() override { return listening() ? Result<size_t>(Error(EINVAL)) : tcp_->readable_bytes(); }
  Result<i64> socket_ioctl(u32 request, u64 argument) override;
  void abandon() { tcp_->close(); }

 protected:
  void load(Options& options) const override { options.tcp = tcp_->options(); }
  void save(const Options& options) override { tcp_->set_options(options.tcp); }
  net::Endpoint local() const override { return tcp_->local(); }
  net::Endpoint remote() const override;
  int take_error() override { return tcp_->take_error(); }
  bool listening() const override { return tcp_->state() == State::listen; }
  Result<size_t> get_special(int level, int option, std::span<u8> out) override;
  Result<void> set_special(int level, int option, std::span<const u8> value) override;

 private:
  enum class Phase : u8 { unconnected, connecting, connected };
  bool handshaking() const { return tcp_->state() == State::syn_sent || tcp_->state() == State::syn_received; }
  bool failed_after(size_t moved) { return moved > 0 && tcp_->readable_bytes() == 0 && (tcp_->events() & net::kError) != 0; }
  Result<void> renew();
  Result<void> begin_connect(const vfs::SocketAddress& address);
  void linger();
  size_t wanted(size_t size, u32 wishes) const;
  Result<size_t> peek(vfs::SocketMessage& message);

  Ref<net::tcp::Socket> tcp_;
  Phase phase_ = Phase::unconnected;
  net::Endpoint bound_;  // by bind(2): port or address are not 0
  bool spent_ = false;   // tcp_ has failed to connect
};

constinit List<InetStream, StreamTag>* streams = nullptr;  // made with the first one, for ever
constinit bool machine_ends = false;

InetStream::InetStream(int socket_domain, u32 file_flags, Ref<net::tcp::Socket> socket)
    : InetSocket(socket_domain, 1, 6, file_flags), tcp_(std::move(socket)) {
  tcp_->set_observer(this);
  streams->push_back(this);
  if (tcp_->remote().port != 0) phase_ = Phase::connected;
}

InetStream::~InetStream() {
  ListNode<StreamTag>::unlink();
  tcp_->close();
  network_run();
  linger();
  tcp_->set_observer(nullptr);
}

// SO_LINGER: close(2) waits until the other end has everything.
void InetStream::linger() {
  const net::tcp::Options& options = tcp_->options();
  if (!options.linger || options.linger_s == 0 || phase_ == Phase::unconnected || machine_ends) return;
  constexpr u64 kStep = kSecond / 100;  // TCP may tell a closed socket's observer nothing
  u64 end = time::monotonic_ns() + options.linger_s * kSecond;
  while (!tcp_->sending_done()) {
    u64 now = time::monotonic_ns();
    if (now >= end || queue_.wait(std::min(end, now + kStep)) == sched::Wake::interrupted) return;
  }
}

u32 InetStream::poll_events() {
  u32 events = tcp_->events();
  constexpr u32 kEnd = net::kError | net::kHangUp | net::kReadHangUp;
  if ((events & (net::kReadable | kEnd)) != net::kReadable || listening()) return events;
  int least = number(kLevelSocket, 18, 1);  // SO_RCVLOWAT
  return least > 1 && tcp_->readable_bytes() < static_cast<size_t>(least) ? events & ~u32{net::kReadable} : events;
}

// --- connections ----------------------------------------------------------------------------------------------------------------

net::Endpoint InetStream::remote() const {
  State state = tcp_->state();
  return state == State::closed || state == State::listen || state == State::syn_sent ? net::Endpoint{} : tcp_->remote();
}

Result<void> InetStream::renew() {
  net::Stack* stack = TRY(network());
  auto fresh = TRY(stack->tcp().socket(domain == kInet ? net::Family::v4 : net::Family::v6));
  net::tcp::Options options = tcp_->options();
  fresh->set_options(options);
  tcp_->set_observer(nullptr);
  options.linger = true;  // a connection ends with a reset
  options.linger_s = 0;
  tcp_->set_options(options);
  tcp_->close();
  tcp_ = std::move(fresh);
  tcp_->set_observer(this);
  phase_ = Phase::unconnected;
  spent_ = false;
  network_run();
  queue_.wake_all();
  return bound_.port != 0 || !bound_.address.is_any() ? tcp_->bind(bound_) : Result<void>();
}

Result<void> InetStream::bind(const vfs::SocketAddress& address) {
  net::Endpoint here = TRY(endpoint(address, AddressUse::bind));
  if (spent_) TRY(renew());
  TRY(tcp_->bind(here));
  bound_ = here;
  return {};
}

Result<void> InetStream::listen(int backlog) {
  if (phase_ != Phase::unconnected) return Error(EINVAL);
  if (spent_) TRY(renew());
  if (tcp_->local().port == 0) TRY(tcp_->bind({domain == kInet ? net::IpAddress::v4(0, 0, 0, 0) : net::IpAddress{}, 0, 0}));
  return tcp_->listen(std::min(static_cast<u32>(backlog), kBacklogMax));
}

Result<Ref<vfs::Socket>> InetStream::accept(vfs::SocketAddress* peer, u32 file_flags) {
  auto accepted = TRY(wait_until_done([&] { return tcp_->accept(); }, 0, receive_timeout_ns));
  auto file = make_ref<InetStream>(domain, file_flags, accepted);
  if (!file.ok()) {
    accepted->close();
    return file.error();
  }
  (*file)->receive_timeout_ns = receive_timeout_ns;
  (*file)->send_timeout_ns = send_timeout_ns;
  if (peer != nullptr) *peer = write_address(domain, accepted->remote());
  return Ref<Socket>(file.release());
}

// The first part of connect(2): EINPROGRESS if there is something to wait for.
Result<void> InetStream::begin_connect(const vfs::SocketAddress& address) {
  if (phase_ == Phase::connected) return Error(EISCONN);
  if (phase_ == Phase::connecting) return Error(EALREADY);
  if (listening()) return Error(EISCONN);
  net::Endpoint there = TRY(endpoint(address, AddressUse::connect));
  TRY(network_wait_configured(there.address));
  if (spent_) TRY(renew());
  if (there.address.is_multicast() || there.address.is_limited_broadcast()) return Error(ENETUNREACH);
  Result<void> begun = tcp_->connect(there);
  if (begun.ok() || begun.error() == Error(EINPROGRESS)) phase_ = Phase::connecting;
  return begun;
}

Result<void> InetStream::connect(const vfs::SocketAddress& address) {
  if (address.size < sizeof(u16)) return Error(EINVAL);
  if (address.family() == 0) return renew();  // AF_UNSPEC
  Result<void> begun = begin_connect(address);
  if (phase_ != Phase::connecting) return begun;
  // The answer may be there already on the loopback: nobody who does not want to wait expects that.
  if (begun.ok() || begun.error() == Error(EINPROGRESS)) {
    if (nonblocking()) {
      network_run();
      return Error(EINPROGRESS);
    }
  }
  auto finished = wait_until_done([&] { return handshaking() ? Result<void>(Error(EAGAIN)) : Result<void>(); }, 0, send_timeout_ns);
  if (!finished.ok()) return finished.error() == Error(EAGAIN) ? (begun.ok() ? Error(EINPROGRESS) : begun.error()) : finished.error();
  int error = tcp_->take_error();
  if (error != 0 || tcp_->state() == State::closed) {
    phase_ = Phase::unconnected;
    spent_ = true;
    return Error(error != 0 ? error : ECONNABORTED);
  }
  phase_ = Phase::connected;
  return {};
}

Result<void> InetStream::shutdown(int how) {
  State state = tcp_->state();
  if (state == State::listen || state == State::syn_sent) return how == 1 && state == State::listen ? Result<void>() : renew();
  TRY(tcp_->shutdown(how));
  network_run();
  queue_.wake_all();
  return {};
}

// --- data -----------------------------------------------------------------------------------------------------------------------

Result<size_t> InetStream::send(vfs::SocketMessage& message) {
  if ((message.flags & kMessageOutOfBand) != 0 || (message.flags & kMessageFastOpen) != 0) return Error(EOPNOTSUPP);
  const auto more = (message.flags & kMessageMore) != 0 ? net::tcp::Socket::More::yes : net::tcp::Socket::More::no;
  const size_t begin = message.data->done();
  auto attempt = [&]() -> Result<size_t> {
    if (handshaking()) return Error(EAGAIN);
    return failed_after(message.data->done() - begin) ? Result<size_t>(0) : tcp_->send(*message.data, more);  // the error is the next call's
  };
  do {
    auto sent = wait_until_done(attempt, message.flags, send_timeout_ns);
    if (sent.ok() && *sent > 0) continue;
    if (message.data->done() > begin) break;
    if (!sent.ok()) return sent.error() == Error(ENOTCONN) ? Error(EPIPE) : sent.error();
  } while (message.data->remaining() > 0);
  network_run();
  return message.data->done() - begin;
}

size_t InetStream::wanted(size_t size, u32 wishes) const {
  if ((wishes & kMessageWaitAll) != 0) return size;
  return std::min(size, static_cast<size_t>(number(kLevelSocket, 18, 1)));  // SO_RCVLOWAT
}

Result<size_t> InetStream::peek(vfs::SocketMessage& message) {
  const size_t least = wanted(message.data->remaining(), message.flags);
  auto attempt = [&]() -> Result<size_t> {
    bool ended = (tcp_->events() & (net::kError | net::kHangUp | net::kReadHangUp)) != 0;
    if (!ended && tcp_->readable_bytes() < least && tcp_->readable_bytes() > 0) return Error(EAGAIN);
    return tcp_->receive(*message.data, net::tcp::Socket::Peek::yes);
  };
  Result<size_t> peeked = wait_until_done(attempt, message.flags, receive_timeout_ns);
  if (peeked.ok() || tcp_->readable_bytes() == 0) return peeked;
  return tcp_->receive(*message.data, net::tcp::Socket::Peek::yes);  // fewer, but no more will be waited for
}

Result<size_t> InetStream::receive(vfs::SocketMessage& message) {
  const u32 wishes = message.flags;
  message.flags = 0;
  if (message.from != nullptr) message.from->size = 0;
  if ((wishes & kMessageErrorQueue) != 0) return Error(EAGAIN);
  if ((wishes & kMessageOutOfBand) != 0) return Error(EINVAL);
  if (phase_ == Phase::unconnected) return Error(ENOTCONN);
  const size_t size = message.data->remaining();
  if (size == 0) {  // waits, and takes nothing
    auto something = [&]() -> Result<size_t> { return (poll_events() & net::kReadable) != 0 ? Result<size_t>(0) : Error(EAGAIN); };
    return wait_until_done(something, wishes, receive_timeout_ns);
  }
  if ((wishes & kMessagePeek) != 0) {
    message.flags = wishes;
    Result<size_t> peeked = peek(message);
    message.flags = 0;
    return peeked;
  }
  const size_t least = wanted(size, wishes);
  size_t total = 0;
  auto attempt = [&]() -> Result<size_t> {
    if (handshaking()) return Error(EAGAIN);
    if (failed_after(total)) return size_t{0};  // the next call's
    return (wishes & kMessageTruncated) != 0 ? tcp_->discard(size - total) : tcp_->receive(*message.data, net::tcp::Socket::Peek::no);
  };
  do {
    auto got = wait_until_done(attempt, wishes, receive_timeout_ns);
    if (!got.ok()) {
      if (total > 0) break;
      return got;
    }
    if (*got == 0) break;
    total += *got;
  } while (total < least);
  network_run_if_due();  // the window may have opened
  return total;
}

// --- options --------------------------------------------------------------------------------------------------------------------

tcp_info make_info(const net::tcp::Information& from) {
  tcp_info info{};
  info.tcpi_state = linux_tcp_state(from.state);
  info.tcpi_retransmits = from.retransmits;
  info.tcpi_options = from.options;
  info.tcpi_snd_wscale = from.window_scale_send & 15;
  info.tcpi_rcv_wscale = from.window_scale_receive & 15;
  info.tcpi_rto = from.rto_us;
  info.tcpi_ato = 40000;
  info.tcpi_snd_mss = from.mss_send;
  info.tcpi_rcv_mss = from.mss_receive;
  info.tcpi_unacked = from.unacknowledged;
  info.tcpi_sacked = from.sacked;
  info.tcpi_lost = from.lost;
  info.tcpi_retrans = from.retransmitted;
  info.tcpi_pmtu = from.mss_send + 40;
  info.tcpi_rcv_ssthresh = from.receive_window;
  info.tcpi_rtt = from.rtt_us;
  info.tcpi_rttvar = from.rtt_variation_us;
  info.tcpi_snd_ssthresh = from.slow_start_threshold;
  info.tcpi_snd_cwnd = from.congestion_window;
  info.tcpi_advmss = from.mss_receive;
  info.tcpi_reordering = 3;
  info.tcpi_rcv_space = from.receive_window;
  info.tcpi_total_retrans = static_cast<u32>(from.total_retransmits);
  info.tcpi_pacing_rate = info.tcpi_max_pacing_rate = ~u64{0};
  info.tcpi_bytes_acked = from.bytes_acknowledged;
  info.tcpi_bytes_received = from.bytes_received;
  info.tcpi_segs_out = static_cast<u32>(from.segments_out);
  info.tcpi_segs_in = static_cast<u32>(from.segments_in);
  info.tcpi_min_rtt = from.rtt_us;
  info.tcpi_notsent_bytes = from.send_queue;
  info.tcpi_snd_wnd = from.send_window;
  return info;
}

Result<size_t> InetStream::get_special(int level, int option, std::span<u8> out) {
  if (level != kLevelTcp) return Error(ENOPROTOOPT);
  switch (option) {
    case TCP_INFO: return put_value(out, make_info(tcp_->information()));
    case TCP_CONGESTION: return put_value(out, kCongestionControl);
    case TCP_MAXSEG: {
      u32 mss = tcp_->options().maximum_segment;
      if (remote().port != 0) mss = tcp_->information().mss_send;
      else if (mss == 0) mss = 536;
      return put_value(out, mss);
    }
    case TCP_ULP: return size_t{0};
    default: return Error(ENOPROTOOPT);
  }
}

Result<void> InetStream::set_special(int level, int option, std::span<const u8> value) {
  if (level != kLevelTcp) return Error(ENOPROTOOPT);
  switch (option) {
    case TCP_CONGESTION: {
      const char* text = reinterpret_cast<const char*>(value.data());
      std::string_view name(text, strnlen(text, std::min<size_t>(value.size(), 15)));
      if (name.empty()) return Error(EINVAL);
      return name == kCongestionControl ? Result<void>() : Error(ENOENT);
    }
    case TCP_MAXSEG: {
      int mss = TRY(take_value<int>(value));
      if (mss != 0 && (mss < 88 || mss > 32767)) return Error(EINVAL);
      net::tcp::Options options = tcp_->options();
      options.maximum_segment = static_cast<u16>(mss);
      tcp_->set_options(options);
      return {};
    }
    case TCP_FASTOPEN_CONNECT: return Error(EOPNOTSUPP);
    case TCP_ULP: return Error(ENOENT);
    default: return Error(ENOPROTOOPT);
  }
}

Result<i64> InetStream::socket_ioctl(u32 request, u64 argument) {
  u64 answer = 0;
  switch (request) {
    case SIOCATMARK: break;  // there is no urgent data
    case SIOCOUTQ: answer = listening() ? 0 : tcp_->information().send_queue; break;
    case SIOCOUTQNSD: answer = listening() ? 0 : tcp_->unsent_bytes(); break;
    default: return interface_ioctl(request, argument);
  }
  if (request != SIOCATMARK && listening()) return Error(EINVAL);
  TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(answer)));
  return i64{0};
}

// Is anything of ours still on its way?
class Unsent final : public net::tcp::Tcp::Visitor {
 public:
  void visit(const net::Flow&, const net::tcp::Information& information) override {
    State state = information.state;
    if (state == State::closed || state == State::listen || state == State::time_wait) return;
    found = found || information.send_queue > 0 || state == State::fin_wait_1 || state == State::closing || state == State::last_ack;
  }
  bool found = false;
};

}  // namespace

void close_all_streams() {
  machine_ends = true;
  if (streams == nullptr) return;
  for (InetStream& stream : *streams) stream.abandon();
}

bool streams_have_unsent_data(net::tcp::Tcp& tcp) {
  Unsent visitor;
  tcp.visit(visitor);
  return visitor.found;
}

Result<Ref<vfs::Socket>> make_stream_socket(int domain, u32 file_flags) {
  if (streams == nullptr) streams = TRY((make_owned<List<InetStream, StreamTag>>())).release();
  net::Stack* stack = TRY(network());
  auto socket = TRY(stack->tcp().socket(domain == kInet ? net::Family::v4 : net::Family::v6));
  return Ref<vfs::Socket>(TRY(make_ref<InetStream>(domain, file_flags, std::move(socket))));
}

}  // namespace husk::linux
