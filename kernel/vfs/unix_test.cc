// AF_UNIX sockets: pairs, names, connections, datagrams, files and credentials in messages; named by what unix(7) says. What programs see is compared
// with Linux in tests/syscalls/unix.c.
#include <asm/socket.h>

#include <map>

#include "kernel/fs/test_support.h"
#include "kernel/vfs/socket.h"
#include "kernel/vfs/unix_socket.h"

namespace husk {
namespace {

using test::code;
using vfs::kHup;
using vfs::kIn;
using vfs::kOut;
using vfs::kSocketDatagram;
using vfs::kSocketSequential;
using vfs::kSocketStream;

struct NamedInode final : vfs::Inode {
  vfs::Stat stat() override { return {}; }
  Result<Ref<vfs::File>> open(u32) override { return Error(ENXIO); }
};

class Environment final : public vfs::UnixEnvironment {
 public:
  Result<Ref<vfs::Inode>> make_node(std::string_view path) override {
    Ref<vfs::Inode>& inode = nodes[std::string(path)];
    if (inode) return Error(EEXIST);
    return inode = make_ref<NamedInode>().release();
  }
  Result<Ref<vfs::Inode>> find_node(std::string_view path) override {
    auto at = nodes.find(std::string(path));
    return at == nodes.end() ? Result<Ref<vfs::Inode>>(Error(ENOENT)) : at->second;
  }
  vfs::SocketCredentials credentials() override { return {1, 2, 3}; }
  Result<i64> ioctl(u32, u64) override { return Error(ENOTTY); }
  std::map<std::string, Ref<vfs::Inode>> nodes;
};

vfs::SocketAddress address(std::string_view path) {
  vfs::SocketAddress result;
  result.bytes[0] = 1;
  memcpy(result.bytes + 2, path.data(), path.size());
  result.size = static_cast<u32>(2 + path.size());
  return result;
}

class UnixTest : public test::Machine {
 protected:
  Ref<vfs::Socket> socket(int type, u32 flags = vfs::kOpenNonBlocking) { return vfs::make_unix_socket(environment, type, 0, flags).release(); }
  Ref<vfs::Socket> listener(std::string_view name, int backlog = 5, int type = kSocketStream, u32 flags = vfs::kOpenNonBlocking) {
    auto made = socket(type, flags);
    EXPECT_TRUE(made->bind(address(name)).ok());
    EXPECT_TRUE(made->listen(backlog).ok());
    return made;
  }
  Ref<vfs::Socket> bound(std::string_view name) {
    auto made = socket(kSocketDatagram);
    EXPECT_TRUE(made->bind(address(name)).ok());
    return made;
  }
  vfs::FilePair pair(int type, u32 flags = vfs::kOpenNonBlocking) { return vfs::make_unix_pair(environment, type, 0, flags).release(); }
  static Result<size_t> send_to(vfs::Socket& socket, std::string_view text, std::string_view name) {
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(text.data(), text.size());
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    vfs::SocketAddress to = address(name);
    vfs::SocketMessage message;
    message.data = &buffer;
    message.to = &to;
    return socket.send(message);
  }
  Environment environment;
};

vfs::Socket& as_socket(const Ref<vfs::File>& file) { return static_cast<vfs::Socket&>(*file); }

TEST_F(UnixTest, pairs_keep_the_borders_of_packets_but_not_of_bytes) {
  auto stream = pair(kSocketStream);
  (void)test::write(*stream.first, "ab").ok();
  (void)test::write(*stream.first, "cd").ok();
  EXPECT_EQ(test::read(*stream.second, 3), "abc");
  EXPECT_EQ(test::read(*stream.second, 3), "d");
  for (int type : {kSocketDatagram, kSocketSequential}) {
    auto packets = pair(type);
    (void)test::write(*packets.first, "abc").ok();
    (void)test::write(*packets.first, "de").ok();
    EXPECT_EQ(test::read(*packets.second, 2), "ab");
    EXPECT_EQ(test::read(*packets.second, 9), "de");
  }
}

TEST_F(UnixTest, a_closed_peer_is_an_end_a_hang_up_and_a_broken_pipe) {
  auto stream = pair(kSocketStream);
  (void)test::write(*stream.first, "x").ok();
  stream.first = nullptr;
  EXPECT_EQ(stream.second->poll_events() & (kHup | vfs::kErr), u32{kHup});
  EXPECT_EQ(test::read(*stream.second, 1), "x");
  EXPECT_EQ(test::read(*stream.second, 1), "");
  EXPECT_EQ(code(test::write(*stream.second, "x")), EPIPE);
  auto unread = pair(kSocketStream);
  (void)test::write(*unread.first, "x").ok();
  unread.second = nullptr;
  EXPECT_EQ(test::read(*unread.first, 1), "errno " + std::to_string(ECONNRESET));
  EXPECT_EQ(test::read(*unread.first, 1), "");
}

TEST_F(UnixTest, files_come_with_the_bytes_they_were_sent_with_and_end_a_read) {
  auto stream = pair(kSocketStream);
  auto carried = vfs::make_pipe(0).release();
  (void)test::write(*carried.second, "inside").ok();
  (void)test::write(*stream.first, "1234").ok();
  Vec<Ref<vfs::File>> files;
  ASSERT_TRUE(files.push_back(carried.first).ok());
  vfs::IoSegment segment = vfs::IoBuffer::kernel_segment("x", 1);
  vfs::IoBuffer out({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  vfs::SocketMessage message;
  message.data = &out;
  message.files = &files;
  EXPECT_EQ(*as_socket(stream.first).send(message), 1u);
  carried.first = nullptr;
  (void)test::write(*stream.first, "5678").ok();
  char bytes[20];
  segment = vfs::IoBuffer::kernel_segment(bytes, sizeof(bytes));
  vfs::IoBuffer in({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  Vec<Ref<vfs::File>> received;
  vfs::SocketMessage reply;
  reply.data = &in;
  reply.files = &received;
  EXPECT_EQ(*as_socket(stream.second).receive(reply), 5u);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(test::read(*received[0], 10), "inside");
  EXPECT_EQ(test::read(*stream.second, 20), "5678");
}

TEST_F(UnixTest, sockets_in_messages_in_sockets_are_closed_without_recursion) {
  Ref<vfs::File> inner = pair(kSocketStream).first;
  for (int i = 0; i < 20'000; ++i) {
    auto outer = pair(kSocketStream);
    Vec<Ref<vfs::File>> files;
    ASSERT_TRUE(files.push_back(std::move(inner)).ok());
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment("x", 1);
    vfs::IoBuffer out({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    vfs::SocketMessage message;
    message.data = &out;
    message.files = &files;
    ASSERT_TRUE(as_socket(outer.first).send(message).ok());
    inner = outer.second;
  }
  inner = nullptr;
}

TEST_F(UnixTest, connections_wait_at_a_listener_up_to_its_backlog) {
  auto server = listener("/s", 0);
  auto client = socket(kSocketStream), second = socket(kSocketStream);
  EXPECT_EQ(client->poll_events() & (kHup | kOut), u32{kHup | kOut});
  EXPECT_EQ(server->poll_events(), 0u);
  EXPECT_EQ(code(server->accept(nullptr, 0)), EAGAIN);
  EXPECT_TRUE(client->connect(address("/s")).ok());
  EXPECT_EQ(code(client->connect(address("/s"))), EAGAIN);
  EXPECT_EQ(code(second->connect(address("/s"))), EAGAIN);
  EXPECT_TRUE(test::write(*client, "early").ok());
  EXPECT_EQ(server->poll_events(), u32{kIn});
  vfs::SocketAddress peer;
  auto accepted = server->accept(&peer, 0).release();
  EXPECT_EQ(peer.size, 2u);
  EXPECT_EQ(code(client->connect(address("/s"))), EISCONN);
  EXPECT_EQ(test::read(*accepted, 9), "early");
  EXPECT_EQ(std::string_view(reinterpret_cast<char*>(client->peer_name()->bytes) + 2, 3), std::string_view("/s\0", 3));
  EXPECT_TRUE(second->connect(address("/s")).ok());
  server = nullptr;
  EXPECT_EQ(test::read(*second, 1), "errno " + std::to_string(ECONNRESET));
  EXPECT_EQ(code(socket(kSocketStream)->connect(address("/s"))), ECONNREFUSED);
}

TEST_F(UnixTest, accept_wakes_one_thread_for_one_connection) {
  auto server = listener("/s", 5, kSocketStream, 0);
  int woken = 0;
  for (int i = 0; i < 3; ++i) {
    spawn([&] {
      ASSERT_TRUE(server->accept(nullptr, 0).ok());
      ++woken;
    });
  }
  sched::run_until_quiet();
  u64 switches = sched::statistics().switches;
  auto client = socket(kSocketStream);
  ASSERT_TRUE(client->connect(address("/s")).ok());
  sched::run_until_quiet();
  EXPECT_EQ(woken, 1);
  EXPECT_LE(sched::statistics().switches - switches, 2u);
  auto more = socket(kSocketStream), last = socket(kSocketStream);
  ASSERT_TRUE(more->connect(address("/s")).ok());
  ASSERT_TRUE(last->connect(address("/s")).ok());
  sched::run_until_quiet();
  EXPECT_EQ(woken, 3);
}

TEST_F(UnixTest, connect_waits_for_room_and_send_for_the_reader) {
  auto server = listener("/s", 0);
  auto first = socket(kSocketStream), second = socket(kSocketStream, 0);
  ASSERT_TRUE(first->connect(address("/s")).ok());
  bool connected = false, sent = false;
  spawn([&] {
    connected = second->connect(address("/s")).ok();
    sent = *test::write(*second, std::string(500'000, 'x')) == 500'000;
  });
  sched::run_until_quiet();
  EXPECT_FALSE(connected);
  (void)server->accept(nullptr, vfs::kOpenNonBlocking).release();
  sched::run_until_quiet();
  EXPECT_TRUE(connected);
  auto accepted = server->accept(nullptr, vfs::kOpenNonBlocking).release();
  EXPECT_FALSE(sent);
  EXPECT_EQ(second->poll_events() & kOut, 0u);
  size_t total = 0;
  while (total < 500'000) {
    total += test::read(*accepted, 100'000).size();
    sched::run_until_quiet();
  }
  EXPECT_TRUE(sent);
  EXPECT_EQ(second->poll_events() & kOut, u32{kOut});
}

TEST_F(UnixTest, time_limits_end_a_wait_with_eagain) {
  auto ends = pair(kSocketStream, 0);
  as_socket(ends.first).receive_timeout_ns = 1'000'000;
  std::string got;
  spawn([&] { got = test::read(*ends.first, 1); });
  sched::run_until_quiet();
  EXPECT_EQ(got, "errno " + std::to_string(EAGAIN));
}

TEST_F(UnixTest, names_are_taken_once_and_refuse_when_nobody_listens) {
  auto server = socket(kSocketStream);
  EXPECT_EQ(code(server->listen(5)), EINVAL);
  EXPECT_TRUE(server->bind(address("/s")).ok());
  EXPECT_EQ(code(server->bind(address("/t"))), EINVAL);
  EXPECT_EQ(code(socket(kSocketStream)->bind(address("/s"))), EADDRINUSE);
  EXPECT_EQ(code(socket(kSocketStream)->connect(address("/s"))), ECONNREFUSED);
  EXPECT_EQ(code(socket(kSocketStream)->connect(address("/none"))), ENOENT);
  EXPECT_EQ(code(socket(kSocketDatagram)->connect(address("/s"))), EPROTOTYPE);
  EXPECT_EQ(code(socket(kSocketStream)->bind(address(""))), 0);
  vfs::SocketAddress wrong = address("/x");
  wrong.bytes[0] = 2;
  EXPECT_EQ(code(socket(kSocketStream)->bind(wrong)), EINVAL);
  auto abstract = listener(std::string_view("\0name", 5));
  EXPECT_EQ(code(socket(kSocketStream)->bind(address(std::string_view("\0name", 5)))), EADDRINUSE);
  EXPECT_TRUE(socket(kSocketStream)->connect(address(std::string_view("\0name", 5))).ok());
  EXPECT_EQ(code(socket(kSocketStream)->connect(address(std::string_view("\0nam", 4)))), ECONNREFUSED);
  abstract = nullptr;
  EXPECT_EQ(code(socket(kSocketStream)->connect(address(std::string_view("\0name", 5)))), ECONNREFUSED);
}

TEST_F(UnixTest, datagrams_go_to_names_and_tell_where_they_come_from) {
  auto a = bound("/a"), b = bound("/b");
  EXPECT_EQ(code(test::write(*a, "x")), ENOTCONN);
  EXPECT_EQ(*send_to(*a, "hello", "/b"), 5u);
  EXPECT_EQ(code(send_to(*a, "hello", "/c")), ENOENT);
  char bytes[20];
  vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(bytes, 3);
  vfs::IoBuffer in({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  vfs::SocketAddress from;
  vfs::SocketMessage message;
  message.data = &in;
  message.from = &from;
  EXPECT_EQ(*b->receive(message), 3u);
  EXPECT_EQ(message.flags, u32{vfs::kMessageTruncated});
  EXPECT_EQ(from.size, 5u);
  ASSERT_TRUE(b->connect(address("/a")).ok());
  auto c = bound("/c");
  EXPECT_EQ(code(send_to(*c, "x", "/b")), EPERM);  // b talks to a only
  a = nullptr;
  EXPECT_EQ(code(test::write(*b, "x")), ECONNREFUSED);
  EXPECT_EQ(code(test::write(*b, "x")), ENOTCONN);
}

TEST_F(UnixTest, a_full_datagram_receiver_holds_its_senders_until_it_reads) {
  auto server = bound("/s");
  auto client = socket(kSocketDatagram);
  ASSERT_TRUE(client->connect(address("/s")).ok());
  int sent = 0;
  while (test::write(*client, "x").ok()) ++sent;
  EXPECT_EQ(sent, 11);
  auto epoll = vfs::make_epoll(0).release();
  ASSERT_TRUE(vfs::epoll_add(*epoll, 3, client, {kOut | 1u << 31, 1}).ok());
  vfs::EpollEvent event;
  EXPECT_EQ(*test::epoll_wait(*epoll, &event, 1, 0), 0u);
  EXPECT_EQ(test::read(*server, 1), "x");
  EXPECT_EQ(*test::epoll_wait(*epoll, &event, 1, 0), 1u);
  EXPECT_TRUE(test::write(*client, "x").ok());
}

TEST_F(UnixTest, credentials_are_those_of_connect_and_listen) {
  auto server = listener("/s");
  auto client = socket(kSocketStream);
  vfs::SocketCredentials peer;
  std::span<u8> out(reinterpret_cast<u8*>(&peer), sizeof(peer));
  EXPECT_EQ(*client->get_option(SOL_SOCKET, SO_PEERCRED, out), sizeof(peer));
  EXPECT_EQ(peer.uid, ~0u);
  ASSERT_TRUE(client->connect(address("/s")).ok());
  (void)client->get_option(SOL_SOCKET, SO_PEERCRED, out).ok();
  EXPECT_EQ(peer.uid, 2u);
}

TEST_F(UnixTest, splice_sends_a_file_with_one_copy_and_takes_what_fits) {
  auto file = vfs::make_memfd("x", 0).release();
  std::string text(600'000, 0);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 11 / 7);
  (void)test::write(*file, text).ok();
  auto ends = pair(kSocketStream);
  u64 offset = 0;
  std::string got;
  int again = 0;
  while (got.size() < text.size()) {
    auto moved = vfs::pipe_splice(*file, &offset, *ends.first, nullptr, text.size());
    again += code(moved) == EAGAIN ? 1 : 0;
    if (moved.ok()) offset += static_cast<u64>(*moved);
    if (moved.ok() && *moved > 0) continue;
    got += test::read(*ends.second, 100'000);
  }
  EXPECT_TRUE(got == text);
  EXPECT_GT(again, 1);
  auto waiting = pair(kSocketStream, 0);
  offset = 0;
  got.clear();
  spawn([&] {
    EXPECT_EQ(*vfs::pipe_splice(*file, &offset, *waiting.first, nullptr, ~size_t{0} >> 1), 600'000);
    waiting.first = nullptr;
  });
  spawn([&] {
    for (std::string piece = "x"; !piece.empty(); got += piece) piece = test::read(*waiting.second, 50'000);
  });
  sched::run_until_quiet();
  EXPECT_TRUE(got == text);
}

}  // namespace
}  // namespace husk
