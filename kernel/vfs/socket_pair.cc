// socketpair(2) of AF_UNIX: streams, datagrams, sequenced packets, with files in messages. unix(7).
//
// Each end owns what it has received. Files in flight are held by their message; a cycle of sockets that carry each other
// is not found (Linux collects such garbage).
#include <algorithm>

#include "base/format.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/file.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr int kStream = 1, kDatagram = 2, kSequential = 5;
constexpr u32 kMessagePeek = 2, kMessageControlCut = 8, kMessageCut = 0x20, kMessageDontWait = 0x40, kMessageWaitAll = 0x100;
constexpr size_t kQueueMax = 208 * kKiB, kChunkMax = 32 * kKiB, kPacketCost = 64;
constexpr u32 kFionread = 0x541b;

struct PacketTag;
struct Packet : ListNode<PacketTag> {
  Vec<u8> bytes;
  size_t taken = 0;
  Vec<Ref<File>> files;
  size_t left() const { return bytes.size() - taken; }
};

class UnixSocket final : public File {
 public:
  UnixSocket(int type, u32 file_flags) : type_(type), stat_(anonymous_stat(kSocketType | 0777)) {
    kind = Kind::socket;
    flags = kOpenReadWrite | file_flags;
  }
  ~UnixSocket() override {
    bool unread = !received_.empty();
    while (Packet* packet = received_.front()) drop(*packet);
    if (peer_ == nullptr) return;
    peer_->peer_ = nullptr;
    if (type_ != kDatagram) {
      peer_->read_closed_ = peer_->write_closed_ = true;
      if (unread) peer_->error_ = ECONNRESET;
    }
    peer_->queue_.wake_all(kIn | kOut | kHup | kReadHup);
  }
  static void connect(UnixSocket& a, UnixSocket& b) {
    a.peer_ = &b;
    b.peer_ = &a;
    a.connected_ = b.connected_ = true;
  }

  Result<size_t> read(IoBuffer& buffer, const u64* offset) override {
    if (offset != nullptr) return Error(ESPIPE);
    if (buffer.remaining() == 0) return size_t{0};
    Message message{&buffer, nullptr, 0};
    return receive(message);
  }
  Result<size_t> write(IoBuffer& buffer, const u64* offset) override {
    if (offset != nullptr) return Error(ESPIPE);
    Message message{&buffer, nullptr, 0};
    return send(message);
  }
  Result<i64> ioctl(u32 request, u64 argument) override {
    if (request != kFionread) return Error(ENOTTY);
    TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(available())));
    return i64{0};
  }
  u32 poll_events() override {
    u32 events = 0;
    if (!received_.empty() || read_closed_) events |= kIn;
    if (read_closed_) events |= kReadHup;
    if ((read_closed_ && write_closed_) || (!connected_ && type_ != kDatagram)) events |= kHup;
    if (error_ != 0) events |= kErr;
    if (peer_ == nullptr || peer_->used_ < kQueueMax / 2) events |= kOut;
    return events;
  }
  sched::WaitQueue* wait_queue() override { return &queue_; }
  Result<Stat> stat() override { return stat_; }
  Result<String> describe() override {
    char text[40];
    format_to(text, sizeof(text), "socket:[%llu]", static_cast<unsigned long long>(stat_.inode));
    return String::from(text);
  }

  Result<size_t> send(Message& message);
  Result<size_t> receive(Message& message);
  Result<void> shutdown(int how);
  int type() const { return type_; }
  bool connected() const { return connected_; }
  size_t available() {
    if (type_ != kStream) return received_.empty() ? 0 : received_.front()->left();
    size_t sum = 0;
    for (Packet& packet : received_) sum += packet.left();
    return sum;
  }

 private:
  void drop(Packet& packet) {
    used_ -= packet.bytes.size() + kPacketCost;
    packet.unlink();
    delete &packet;
  }
  Result<void> wait(const Message& message) {
    if ((message.flags & kMessageDontWait) != 0) return Error(EAGAIN);
    return wait_for_change(*this, queue_);
  }
  Result<size_t> send_one(Message& message, size_t size);
  void take_files(Packet& packet, Message& message);

  int type_;
  Stat stat_;
  UnixSocket* peer_ = nullptr;
  List<Packet, PacketTag> received_;
  size_t used_ = 0;
  bool connected_ = false;  // once and for ever
  bool read_closed_ = false, write_closed_ = false;
  int error_ = 0;
  sched::WaitQueue queue_;
};

// One packet into the other end's queue, which has room.
Result<size_t> UnixSocket::send_one(Message& message, size_t size) {
  Owned<Packet> packet = TRY(make_owned<Packet>());
  TRY(packet->bytes.resize(size));
  if (size > 0) {
    size_t got = TRY(message.data->take(packet->bytes.data(), size));
    if (got < size && type_ != kStream) return Error(EFAULT);
    TRY(packet->bytes.resize(got));
  }
  if (message.files != nullptr) packet->files = std::move(*message.files);
  message.files = nullptr;
  size_t sent = packet->bytes.size();
  peer_->used_ += sent + kPacketCost;
  peer_->received_.push_back(packet.release());
  peer_->queue_.wake_all(kIn);
  return sent;
}

Result<size_t> UnixSocket::send(Message& message) {
  size_t total = 0;
  if (type_ != kStream && message.data->remaining() > kQueueMax - kPacketCost) return Error(EMSGSIZE);
  if (type_ == kStream && message.data->remaining() == 0) return size_t{0};
  do {
    if (write_closed_) return total > 0 ? Result<size_t>(total) : Error(EPIPE);
    if (peer_ == nullptr) return Error(connected_ ? ECONNREFUSED : ENOTCONN);
    if (peer_->read_closed_) return total > 0 ? Result<size_t>(total) : Error(EPIPE);
    size_t size = message.data->remaining();
    size_t room = kQueueMax - std::min(kQueueMax, peer_->used_ + kPacketCost);
    if (type_ == kStream ? room == 0 : room < size) {
      Result<void> waited = wait(message);
      if (!waited.ok()) return total > 0 ? Result<size_t>(total) : waited.error();
      continue;
    }
    if (type_ == kStream) size = std::min({size, room, kChunkMax});
    Result<size_t> sent = send_one(message, size);
    if (!sent.ok()) return total > 0 ? Result<size_t>(total) : sent.error();
    total += *sent;
    if (*sent < size || type_ != kStream) break;
  } while (message.data->remaining() > 0);
  return total;
}

void UnixSocket::take_files(Packet& packet, Message& message) {
  if (packet.files.empty()) return;
  if (message.files == nullptr) {
    message.flags |= kMessageControlCut;
    if ((message.flags & kMessagePeek) == 0) packet.files.clear();
    return;
  }
  if ((message.flags & kMessagePeek) == 0) {
    *message.files = std::move(packet.files);
    return;
  }
  for (Ref<File>& file : packet.files) {
    if (!message.files->push_back(file).ok()) message.flags |= kMessageControlCut;
  }
}

Result<size_t> UnixSocket::receive(Message& message) {
  if (!connected_ && type_ != kDatagram) return Error(type_ == kStream ? EINVAL : ENOTCONN);
  const u32 wishes = message.flags;
  message.flags &= ~(kMessageCut | kMessageControlCut);
  while (received_.empty()) {
    if (error_ != 0) return Error(std::exchange(error_, 0));
    if (read_closed_) return size_t{0};
    TRY(wait(message));
  }
  const bool peek = (wishes & kMessagePeek) != 0;
  size_t total = 0;
  while (Packet* packet = received_.front()) {
    // Files come with the bytes they were sent with; bytes of another message with files wait for the next call.
    if (total > 0 && !packet->files.empty()) break;
    take_files(*packet, message);
    bool had_files = message.files != nullptr && !message.files->empty();
    size_t left = packet->left();
    Result<size_t> got = message.data->remaining() > 0 ? message.data->put(packet->bytes.data() + packet->taken, left) : size_t{0};
    if (!got.ok()) return total > 0 ? Result<size_t>(total) : got.error();
    total += *got;
    if (type_ != kStream) {
      if (*got < left) message.flags |= kMessageCut;
      if ((wishes & kMessageCut) != 0) total = left;  // MSG_TRUNC asks for the real length
      if (!peek) drop(*packet);
      break;
    }
    if (peek) break;
    packet->taken += *got;
    if (packet->left() == 0) drop(*packet);
    if (message.data->remaining() == 0 || had_files) break;
    if (received_.empty() && (wishes & kMessageWaitAll) != 0 && !read_closed_ && !wait(message).ok()) break;
  }
  if (!peek && peer_ != nullptr) peer_->queue_.wake_all(kOut);
  return total;
}

Result<void> UnixSocket::shutdown(int how) {
  if (how < 0 || how > 2) return Error(EINVAL);
  if (peer_ == nullptr && type_ == kDatagram) return Error(ENOTCONN);
  bool reading = how != 1, writing = how != 0;
  read_closed_ |= reading;
  write_closed_ |= writing;
  if (peer_ != nullptr && type_ != kDatagram) {
    peer_->read_closed_ |= writing;
    peer_->write_closed_ |= reading;
    peer_->queue_.wake_all(kIn | kOut | kHup | kReadHup);
  }
  queue_.wake_all(kIn | kOut | kHup | kReadHup);
  return {};
}

UnixSocket& as_unix(File& socket) { return static_cast<UnixSocket&>(socket); }

}  // namespace

Result<Ref<UnixSocket>> make_unix_socket(int type, u32 flags) {
  if (type != kStream && type != kDatagram && type != kSequential) return Error(ESOCKTNOSUPPORT);
  return make_ref<UnixSocket>(type, flags & kOpenNonBlocking);
}

Result<FilePair> make_socket_pair(int type, u32 flags) {
  Ref<UnixSocket> first = TRY(make_unix_socket(type, flags));
  Ref<UnixSocket> second = TRY(make_unix_socket(type, flags));
  UnixSocket::connect(*first, *second);
  return FilePair{std::move(first), std::move(second)};
}

Result<Ref<File>> make_socket(int type, u32 flags) { return Ref<File>(TRY(make_unix_socket(type, flags))); }
bool socket_connected(File& socket) { return as_unix(socket).connected(); }

Result<size_t> socket_send(File& socket, Message& message) { return as_unix(socket).send(message); }
Result<size_t> socket_receive(File& socket, Message& message) { return as_unix(socket).receive(message); }
Result<void> socket_shutdown(File& socket, int how) { return as_unix(socket).shutdown(how); }
int socket_type(File& socket) { return as_unix(socket).type(); }
size_t socket_bytes_available(File& socket) { return as_unix(socket).available(); }

}  // namespace husk::vfs
