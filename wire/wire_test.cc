// Every format against frames of a real machine, and against what must be refused. Named by the section of the RFC.
#include <gtest/gtest.h>

#include <random>

#include "wire/arp.h"
#include "wire/dhcp.h"
#include "wire/frames_test.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace husk::wire {
namespace {

using frames::bytes;
using Bytes = std::vector<u8>;

// The payload of the frame's ethernet header.
Bytes behind_ethernet(const char* frame) {
  Bytes all = bytes(frame);
  auto payload = Ethernet::parse(all)->payload;
  return {payload.begin(), payload.end()};
}
Bytes concat(std::initializer_list<Bytes> parts) {
  Bytes result;
  for (auto& part : parts) result.insert(result.end(), part.begin(), part.end());
  return result;
}
Bytes to_bytes(std::span<const u8> span) { return {span.begin(), span.end()}; }

Checksum pseudo(const Ipv4& ip) {
  Checksum sum;
  sum.add_pseudo_v4(ip.header->source, ip.header->destination, ip.header->protocol, ip.payload_size);
  return sum;
}
Checksum pseudo(const Ipv6& ip, u8 protocol, size_t size) {
  Checksum sum;
  sum.add_pseudo_v6(ip.header->source, ip.header->destination, protocol, static_cast<u32>(size));
  return sum;
}
bool whole_valid(Checksum sum, std::span<const u8> message) {
  sum.add(message);
  return sum.valid();
}

// --- checksum ----------------------------------------------------------------

TEST(Checksum, rfc1071_3_numerical_example) {
  Bytes message = bytes("0001f203f4f5f6f7");
  Checksum sum;
  sum.add(message);
  EXPECT_EQ(sum.folded(), 0xddf2);
  EXPECT_EQ(sum.finish(), 0x220d);
}

TEST(Checksum, rfc1071_1_any_split_and_alignment_gives_the_same_as_word_by_word) {
  std::mt19937 random(1);
  Bytes memory(4096);
  for (int round = 0; round < 3000; ++round) {
    bool ones = round % 3 == 0;  // all carries
    for (auto& byte : memory) byte = ones ? 0xff : static_cast<u8>(random());
    size_t from = random() % 64, size = random() % (round % 5 == 0 ? 3000 : 200);
    u64 expected = 0;
    for (size_t i = 0; i < size; ++i) expected += i % 2 == 0 ? memory[from + i] << 8 : memory[from + i];
    while (expected >> 16 != 0) expected = (expected & 0xffff) + (expected >> 16);
    Checksum sum;
    for (size_t at = 0; at < size;) {
      size_t step = std::min<size_t>(size - at, random() % 150);
      sum.add(std::span(memory).subspan(from + at, step));
      at += step;
    }
    ASSERT_EQ(sum.folded(), expected) << size;
    ASSERT_EQ(sum.finish(), static_cast<u16>(~expected));
  }
}

TEST(Checksum, rfc1624_4_example) { EXPECT_EQ(checksum_update(0xdd2f, 0x5555, 0x3285), 0x0000); }

TEST(Checksum, rfc1624_3_update_equals_summing_anew) {
  std::mt19937 random(2);
  Bytes message(40);
  for (int round = 0; round < 1000; ++round) {
    for (auto& byte : message) byte = static_cast<u8>(random());
    Be16 before = checksum_of(message), old_word = load_be16(&message[6]), new_word = static_cast<u16>(random());
    store_be16(&message[6], new_word);
    Be16 updated = checksum_update(before, old_word, new_word);
    Checksum sum;
    sum.add(message), sum.add(updated);
    ASSERT_TRUE(sum.valid());
  }
}

TEST(Checksum, rfc768_zero_is_sent_as_all_ones) {
  Checksum sum;
  sum.add(Be16(0xffff));
  EXPECT_EQ(sum.finish(), 0);
  EXPECT_EQ(sum.finish_udp(), 0xffff);
}

// --- ethernet, ARP -------------------------------------------------------------

TEST(Ethernet, rfc894_types_and_groups) {
  Bytes request = bytes(frames::kArpRequest), report = bytes(frames::kMldReport), echo = bytes(frames::kEchoRequest);
  EXPECT_EQ(Ethernet::parse(request)->type(), kEtherTypeArp);
  EXPECT_TRUE(Ethernet::parse(request)->to_broadcast());
  EXPECT_EQ(Ethernet::parse(report)->type(), kEtherTypeIpv6);
  EXPECT_TRUE(Ethernet::parse(report)->to_group());
  EXPECT_FALSE(Ethernet::parse(report)->to_broadcast());
  EXPECT_FALSE(Ethernet::parse(echo)->to_group());
  EXPECT_EQ(Ethernet::parse(echo)->payload.size(), echo.size() - 14);
}

TEST(Ethernet, rfc1122_2_3_3_lengths_and_short_frames_are_refused) {
  Bytes frame = bytes(frames::kArpRequest);
  EXPECT_FALSE(Ethernet::parse(std::span(frame).first(13)));
  frame[12] = 0x05, frame[13] = 0xff;
  EXPECT_FALSE(Ethernet::parse(frame));
}

TEST(Ethernet, rfc1112_6_4_and_rfc2464_7_addresses_of_groups) {
  u8 mac[6], all_systems[4] = {224, 129, 0, 251}, solicited[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x47, 0xb1, 0x63};
  multicast_mac_v4(all_systems, mac);
  EXPECT_EQ(to_bytes(mac), bytes("01005e0100fb"));
  multicast_mac_v6(solicited, mac);
  EXPECT_EQ(to_bytes(mac), bytes("3333ff47b163"));
}

TEST(Arp, rfc826_request_and_reply) {
  Bytes request = behind_ethernet(frames::kArpRequest), reply = behind_ethernet(frames::kArpReply);
  auto arp = Arp::parse(request);
  ASSERT_TRUE(arp);
  EXPECT_TRUE(arp->request());
  EXPECT_FALSE(arp->probe());
  EXPECT_EQ(to_bytes(arp->packet->target_address), bytes("0a630002"));
  u8 out[64] = {};
  EXPECT_EQ(build_arp(out, kArpRequest, arp->packet->sender_mac, arp->packet->sender_address, nullptr, arp->packet->target_address), 28u);
  EXPECT_EQ(to_bytes(std::span(out).first(28)), request);
  EXPECT_FALSE(Arp::parse(reply)->request());
  EXPECT_EQ(build_arp(std::span(out).first(27), kArpReply, out, out, out, out), 0u);
}

TEST(Arp, rfc5227_1_1_probe) {
  Bytes request = behind_ethernet(frames::kArpRequest);
  memset(&request[14], 0, 4);
  EXPECT_TRUE(Arp::parse(request)->probe());
}

TEST(Arp, rfc826_other_hardware_protocols_and_sizes_are_refused) {
  for (size_t at : {0, 2, 4, 5, 6}) {
    Bytes request = behind_ethernet(frames::kArpRequest);
    request[at] ^= 0x10;
    EXPECT_FALSE(Arp::parse(request)) << at;
  }
}

// --- IPv4, ICMP, UDP ---------------------------------------------------------------

TEST(Ipv4, rfc791_3_1_header) {
  Bytes packet = behind_ethernet(frames::kUdp);
  auto ip = Ipv4::parse(packet);
  ASSERT_TRUE(ip);
  EXPECT_TRUE(ip->checksum_valid());
  EXPECT_TRUE(ip->dont_fragment());
  EXPECT_FALSE(ip->is_fragment());
  EXPECT_EQ(ip->payload_size, 16u);
  u8 out[20];
  Ipv4Fields fields{0, 64, kProtocolUdp, ip->header->identification, kIpv4DontFragment, ip->header->source, ip->header->destination};
  EXPECT_EQ(build_ipv4(out, fields, 16), 20u);
  EXPECT_EQ(to_bytes(out), to_bytes(std::span(packet).first(20)));
  EXPECT_EQ(build_ipv4(out, fields, 65516), 0u);
}

TEST(Ipv4, rfc791_3_1_padding_is_cut_off_and_lengths_that_lie_are_refused) {
  Bytes packet = behind_ethernet(frames::kUdp);
  Bytes padded = concat({packet, Bytes(10)});
  EXPECT_EQ(Ipv4::parse(padded)->payload.size(), 16u);
  EXPECT_FALSE(Ipv4::parse(std::span(packet).first(35)));
  EXPECT_TRUE(Ipv4::parse(std::span(packet).first(24), 36));  // the rest is in other slices
  EXPECT_EQ(Ipv4::parse(std::span(packet).first(24), 36)->payload.size(), 4u);
  EXPECT_EQ(Ipv4::parse(std::span(packet).first(24), 36)->payload_size, 16u);
  for (u8 first : {0x44, 0x65, 0x4a, 0x05}) {
    Bytes wrong = packet;
    wrong[0] = first;
    EXPECT_FALSE(Ipv4::parse(wrong)) << int{first};
  }
  packet[3] = 19;  // less than the header
  EXPECT_FALSE(Ipv4::parse(packet));
}

TEST(Ipv4, rfc791_3_1_options_and_fragments) {
  Bytes packet = bytes("4700001c00072005400100000a0000010a000002940400000101000000000000");
  auto ip = Ipv4::parse(packet);
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->header_size, 28u);
  EXPECT_EQ(ip->payload_size, 0u);
  EXPECT_TRUE(ip->more_fragments());
  EXPECT_EQ(ip->fragment_offset(), 40u);
  EXPECT_FALSE(ip->has_source_route());
  packet[20] = 131;
  EXPECT_TRUE(Ipv4::parse(packet)->has_source_route());
  packet[20] = 148, packet[21] = 9;  // longer than the header
  EXPECT_TRUE(Ipv4::parse(packet)->has_source_route());
}

TEST(Icmp, rfc792_echo) {
  Bytes packet = behind_ethernet(frames::kEchoRequest);
  auto ip = Ipv4::parse(packet);
  auto icmp = Icmp::parse(ip->payload);
  ASSERT_TRUE(icmp);
  EXPECT_EQ(icmp->type(), kIcmpEchoRequest);
  EXPECT_FALSE(icmp->is_error());
  EXPECT_TRUE(checksum_valid(ip->payload));
  EXPECT_EQ(icmp->header->echo_identifier(), 0x36ed);
  u8 out[8];
  EXPECT_EQ(build_icmp(out, kIcmpEchoRequest, 0, 0x36ed, 0, icmp->body), 8u);
  EXPECT_EQ(to_bytes(out), to_bytes(ip->payload.first(8)));
}

TEST(Icmp, rfc792_unreachable_quotes_a_packet) {
  Bytes packet = behind_ethernet(frames::kPortUnreachable);
  auto ip = Ipv4::parse(packet);
  auto icmp = Icmp::parse(ip->payload);
  EXPECT_TRUE(icmp->is_error());
  EXPECT_EQ(icmp->code(), kIcmpPortUnreachable);
  auto quoted = Ipv4::parse(icmp->body);
  ASSERT_TRUE(quoted);
  EXPECT_EQ(Udp::parse(quoted->payload)->header->destination_port, 9);
}

TEST(Udp, rfc768_lengths_and_checksum) {
  Bytes packet = behind_ethernet(frames::kUdp);
  auto ip = Ipv4::parse(packet);
  auto udp = Udp::parse(ip->payload);
  ASSERT_TRUE(udp);
  EXPECT_TRUE(udp->has_checksum());
  EXPECT_TRUE(whole_valid(pseudo(*ip), ip->payload));
  EXPECT_EQ(std::string(udp->payload.begin(), udp->payload.end()), "datagram");
  Bytes message = to_bytes(ip->payload);
  message[5] = 10;  // shorter than the IP payload
  EXPECT_EQ(Udp::parse(message)->payload.size(), 2u);
  for (u8 size : {0, 7, 17}) {
    message[5] = size;
    EXPECT_FALSE(Udp::parse(message)) << int{size};
  }
}

TEST(Udp, rfc8200_8_1_checksum) {
  Bytes packet = behind_ethernet(frames::kUdp6);
  auto ip = Ipv6::parse(packet);
  EXPECT_TRUE(whole_valid(pseudo(*ip, kProtocolUdp, ip->payload_size), ip->payload));
  u8 out[8];
  ASSERT_EQ(build_udp(out, 35989, 9, 8), 8u);
  Checksum sum = pseudo(*ip, kProtocolUdp, 16);
  sum.add(out), sum.add(Udp::parse(ip->payload)->payload);
  reinterpret_cast<UdpHeader*>(out)->checksum = sum.finish_udp();
  EXPECT_EQ(to_bytes(out), to_bytes(ip->payload.first(8)));
}

// --- TCP -------------------------------------------------------------------------

TEST(Tcp, rfc9293_3_1_header_and_checksum) {
  Bytes packet = behind_ethernet(frames::kTcpData);
  auto ip = Ipv4::parse(packet);
  auto tcp = Tcp::parse(ip->payload);
  ASSERT_TRUE(tcp);
  EXPECT_TRUE(whole_valid(pseudo(*ip), ip->payload));
  EXPECT_EQ(tcp->header->source_port, 80);
  EXPECT_EQ(tcp->header->sequence, 0x79bb2c69u);
  EXPECT_EQ(tcp->header->flags, 0x18);
  EXPECT_EQ(std::string(tcp->payload.begin(), tcp->payload.end()), "hello");
  auto options = tcp->parse_options();
  EXPECT_TRUE(options.has_timestamps);
  EXPECT_EQ(options.timestamp_value, 0xc8063e69u);
  EXPECT_EQ(options.timestamp_echo, 0xebda8be4u);
}

TEST(Tcp, rfc9293_3_1_data_offset_outside_the_segment_is_refused) {
  Bytes packet = behind_ethernet(frames::kTcpData);
  Bytes segment = to_bytes(Ipv4::parse(packet)->payload);
  for (u8 offset : {0x00, 0x40, 0xa0}) {
    segment[12] = offset;
    EXPECT_FALSE(Tcp::parse(segment)) << int{offset};
  }
  EXPECT_FALSE(Tcp::parse(std::span(segment).first(19)));
}

TEST(Tcp, rfc9293_3_2_options_of_a_syn_round_trip) {
  for (auto frame : {frames::kTcpSyn, frames::kTcpSynAck}) {
    Bytes packet = behind_ethernet(frame);
    auto tcp = Tcp::parse(Ipv4::parse(packet)->payload);
    auto options = tcp->parse_options();
    EXPECT_EQ(options.mss, 1460);
    EXPECT_EQ(options.window_scale, 10);
    EXPECT_TRUE(options.sack_permitted);
    EXPECT_TRUE(options.has_timestamps);
    u8 out[40];
    EXPECT_EQ(build_tcp_options(options, out), tcp->options.size());
    EXPECT_EQ(to_bytes(std::span(out).first(tcp->options.size())), to_bytes(tcp->options));
    EXPECT_EQ(build_tcp_options(options, std::span(out).first(19)), 0u);
  }
}

TEST(Tcp, rfc2018_3_as_many_blocks_as_fit) {
  TcpOptions options;
  options.sack_count = 4;
  for (u32 i = 0; i < 4; ++i) options.sack[i] = {i * 10, i * 10 + 5};
  u8 out[40];
  ASSERT_EQ(build_tcp_options(options, out), 36u);
  EXPECT_EQ(Tcp::parse_tcp_options(std::span(out).first(36)), options);
  options.has_timestamps = true;
  ASSERT_EQ(build_tcp_options(options, out), 40u);
  EXPECT_EQ(Tcp::parse_tcp_options(out).sack_count, 3);
  ASSERT_EQ(build_tcp_options(options, std::span(out).first(23)), 12u);
}

TEST(Tcp, rfc7323_2_3_shift_above_14_is_14) {
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("03030f00")).window_scale, 14);
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("03030000")).window_scale, 0);
}

TEST(Tcp, rfc9293_3_2_impossible_lengths_end_the_list) {
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("0204")).mss, 0);
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("0200020405b4")).mss, 0);
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("0201020405b4")).mss, 0);
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("0203050101020405b4")).mss, 1460);  // a wrong length that is possible: only that one
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("050a0000000100000002")).sack_count, 1);
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("05090000000100000002")).sack_count, 0);
  EXPECT_EQ(Tcp::parse_tcp_options(bytes("00020405b4")).mss, 0);
}

// --- IPv6 --------------------------------------------------------------------------

Bytes ipv6_packet(u8 next_header, const Bytes& payload) {
  Bytes packet(40 + payload.size());
  Bytes address = bytes("fd99{13}02");
  build_ipv6(packet, {0, 64, next_header, 0, address.data(), address.data()}, static_cast<u32>(payload.size()));
  std::copy(payload.begin(), payload.end(), packet.begin() + 40);
  return packet;
}
Ipv6Walk walk(u8 next_header, const Bytes& payload) {
  Bytes packet = ipv6_packet(next_header, payload);
  auto ip = Ipv6::parse(packet);
  return ip ? walk_ipv6(*ip) : Ipv6Walk{};
}
using End = Ipv6Walk::End;

TEST(Ipv6, rfc8200_3_header) {
  Bytes packet = behind_ethernet(frames::kUdp6);
  auto ip = Ipv6::parse(packet);
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->flow_label(), 0x94dd2u);
  EXPECT_EQ(ip->traffic_class(), 0);
  EXPECT_EQ(ip->payload_size, 16u);
  u8 out[40];
  ASSERT_EQ(build_ipv6(out, {0, 64, kProtocolUdp, 0x94dd2, ip->header->source, ip->header->destination}, 16), 40u);
  EXPECT_EQ(to_bytes(out), to_bytes(std::span(packet).first(40)));
  EXPECT_FALSE(Ipv6::parse(std::span(packet).first(55)));
  EXPECT_EQ(Ipv6::parse(std::span(packet).first(50), 56)->payload.size(), 10u);
  packet[0] = 0x40;
  EXPECT_FALSE(Ipv6::parse(packet));
}

TEST(Ipv6, rfc8200_4_1_walk_to_the_upper_layer) {
  Bytes report = behind_ethernet(frames::kMldReport);
  Ipv6Walk end = walk_ipv6(*Ipv6::parse(report));
  EXPECT_EQ(end.end, End::upper);
  EXPECT_EQ(end.protocol, kProtocolIcmpv6);
  EXPECT_EQ(end.offset, 48u);
  EXPECT_EQ(end.next_header_at, 40u);
  EXPECT_TRUE(end.router_alert);
  end = walk(kProtocolUdp, {});
  EXPECT_EQ(end.end, End::upper);
  EXPECT_EQ(end.offset, 40u);
  EXPECT_EQ(end.next_header_at, 6u);
  EXPECT_EQ(walk(kProtocolDestinationOptions, bytes("2b00010400000000"
                                                    "1100040000000000"))
                .end,
            End::upper);
  EXPECT_EQ(walk(kProtocolNone, {}).protocol, kProtocolNone);
}

TEST(Ipv6, rfc8200_4_1_hop_by_hop_elsewhere_is_an_unrecognised_next_header) {
  Ipv6Walk end = walk(kProtocolDestinationOptions, bytes("0000010400000000"
                                                         "1100010400000000"));
  EXPECT_EQ(end.end, End::problem);
  EXPECT_EQ(end.code, 1);
  EXPECT_EQ(end.pointer, 40u);
}

TEST(Ipv6, rfc8200_4_2_unknown_options_by_their_upper_bits) {
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("11003e0400000000")).end, End::upper);
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("11007e0400000000")).end, End::discard);
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("11000000be020000")).end, End::problem);
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("11000000be020000")).pointer, 44u);
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("11000000be020000")).code, 2);
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("1100fe0400000000")).end, End::problem_unicast);
  EXPECT_EQ(walk(kProtocolHopByHop, bytes("1100010500000000")).end, End::malformed);
}

TEST(Ipv6, rfc8200_4_4_routing_with_segments_left) {
  EXPECT_EQ(walk(kProtocolRouting, bytes("1100000000000000")).end, End::upper);
  Ipv6Walk end = walk(kProtocolRouting, bytes("1100040100000000"));
  EXPECT_EQ(end.end, End::problem);
  EXPECT_EQ(end.code, 0);
  EXPECT_EQ(end.pointer, 42u);
}

TEST(Ipv6, rfc8200_4_5_fragment) {
  Bytes packet = ipv6_packet(kProtocolFragment, bytes("1100002900000007"));
  Ipv6Walk end = walk_ipv6(*Ipv6::parse(packet));
  ASSERT_EQ(end.end, End::fragment);
  EXPECT_EQ(end.fragment->offset(), 40u);
  EXPECT_TRUE(end.fragment->more());
  EXPECT_EQ(end.fragment->identification, 7u);
  EXPECT_EQ(end.protocol, kProtocolUdp);
  EXPECT_EQ(end.offset, 40u);
}

TEST(Ipv6, rfc6946_atomic_fragment_is_no_fragment) {
  Ipv6Walk end = walk(kProtocolFragment, bytes("1100000000000007"));
  EXPECT_EQ(end.end, End::upper);
  EXPECT_EQ(end.offset, 48u);
}

TEST(Ipv6, rfc8200_4_chain_is_bounded_and_stays_in_the_packet) {
  Bytes chain;
  for (int i = 0; i < 20; ++i) chain = concat({chain, bytes("3c00010400000000")});
  EXPECT_EQ(walk(kProtocolDestinationOptions, chain).end, End::malformed);
  EXPECT_EQ(walk(kProtocolDestinationOptions, bytes("1101010400000000")).end, End::malformed);
  EXPECT_EQ(walk(kProtocolDestinationOptions, bytes("11000104000000")).end, End::malformed);
  EXPECT_EQ(walk(kProtocolFragment, bytes("11")).end, End::malformed);
}

// --- ICMPv6 and neighbour discovery --------------------------------------------------

struct Icmpv6Packet {
  Bytes packet;
  Ipv6 ip;
  std::span<const u8> message;
  explicit Icmpv6Packet(const char* frame) : packet(behind_ethernet(frame)), ip(*Ipv6::parse(packet)) {
    message = std::span<const u8>(packet).subspan(walk_ipv6(ip).offset);
  }
  bool valid() const { return whole_valid(pseudo(ip, kProtocolIcmpv6, message.size()), message); }
};

TEST(Icmpv6, rfc4443_2_3_checksum_with_pseudo_header) {
  for (auto frame : {frames::kMldReport, frames::kDadSolicitation, frames::kRouterSolicitation, frames::kNeighbourAdvertisement,
                     frames::kPortUnreachable6, frames::kRouterAdvertisement}) {
    EXPECT_TRUE(Icmpv6Packet(frame).valid());
  }
}

TEST(Icmpv6, rfc4443_3_1_unreachable_quotes_a_packet) {
  Icmpv6Packet packet(frames::kPortUnreachable6);
  auto icmp = Icmpv6::parse(packet.message);
  EXPECT_TRUE(icmp->is_error());
  EXPECT_EQ(icmp->type(), kIcmpv6Unreachable);
  EXPECT_EQ(icmp->code(), kIcmpv6PortUnreachable);
  EXPECT_EQ(Ipv6::parse(icmp->body)->header->next_header, kProtocolUdp);
}

TEST(Icmpv6, rfc4861_4_3_solicitation_with_nonce_and_no_link_address) {
  Icmpv6Packet packet(frames::kDadSolicitation);
  auto neighbour = Neighbour::parse(packet.message);
  ASSERT_TRUE(neighbour);
  EXPECT_TRUE(neighbour->solicitation());
  EXPECT_EQ(neighbour->link_address, nullptr);
}

TEST(Icmpv6, rfc4861_4_4_advertisement_round_trip) {
  Icmpv6Packet packet(frames::kNeighbourAdvertisement);
  auto neighbour = Neighbour::parse(packet.message);
  ASSERT_TRUE(neighbour);
  EXPECT_EQ(neighbour->flags(), kNeighbourSolicited | kNeighbourOverride);
  ASSERT_NE(neighbour->link_address, nullptr);
  u8 out[32];
  ASSERT_EQ(build_neighbour(out, kIcmpv6NeighbourAdvertisement, neighbour->flags(), neighbour->message->target, neighbour->link_address,
                            pseudo(packet.ip, kProtocolIcmpv6, 32)),
            32u);
  EXPECT_EQ(to_bytes(out), to_bytes(packet.message));
  EXPECT_EQ(build_neighbour(std::span(out).first(31), kIcmpv6NeighbourAdvertisement, 0, out, out, {}), 0u);
}

TEST(Icmpv6, rfc4861_4_1_router_solicitation_round_trip) {
  Icmpv6Packet packet(frames::kRouterSolicitation);
  auto solicitation = RouterSolicitation::parse(packet.message);
  ASSERT_TRUE(solicitation);
  u8 out[16];
  ASSERT_EQ(build_router_solicitation(out, solicitation->link_address, pseudo(packet.ip, kProtocolIcmpv6, 16)), 16u);
  EXPECT_EQ(to_bytes(out), to_bytes(packet.message));
}

TEST(Icmpv6, rfc4861_6_1_options_of_length_zero_or_cut_off_drop_the_message) {
  for (size_t at : {25, 24}) {
    Icmpv6Packet packet(frames::kNeighbourAdvertisement);
    Bytes message = to_bytes(packet.message);
    message[25] = at == 25 ? 0 : 2;
    EXPECT_FALSE(Neighbour::parse(message));
    EXPECT_FALSE(Neighbour::parse(std::span(message).first(31)));
  }
}

TEST(Icmpv6, rfc4861_4_2_and_rfc8106_5_router_advertisement) {
  Icmpv6Packet packet(frames::kRouterAdvertisement);
  auto advertisement = RouterAdvertisement::parse(packet.message);
  ASSERT_TRUE(advertisement);
  EXPECT_EQ(advertisement->message->lifetime_s, 1800);
  EXPECT_EQ(advertisement->message->flags, 0x40);
  u32 mtu = 0, seen = 0;
  NdpOptionReader reader(advertisement->options);
  while (auto option = reader.next()) {
    ++seen;
    mtu |= option->mtu();
    if (auto* prefix = NdpPrefix::parse(*option)) {
      EXPECT_EQ(prefix->prefix_bits, 64);
      EXPECT_TRUE(prefix->on_link());
      EXPECT_TRUE(prefix->autonomous());
      EXPECT_EQ(prefix->valid_s, 86400u);
      EXPECT_EQ(to_bytes(prefix->prefix), bytes("20010db80001{10}"));
    }
    if (auto servers = NdpRdnss::parse(*option)) {
      ASSERT_EQ(servers->count(), 1u);
      EXPECT_EQ(servers->lifetime_s, 600u);
      EXPECT_EQ(to_bytes({servers->address(0), 16}), bytes("20010db80001{9}53"));
    }
    if (auto names = NdpDnssl::parse(*option)) {
      char name[64];
      EXPECT_EQ(std::string_view(name, names->first_name(name)), "example.org");
      EXPECT_EQ(names->first_name(std::span(name).first(5)), 0u);
    }
  }
  EXPECT_EQ(seen, 5u);
  EXPECT_EQ(mtu, 1400u);
}

TEST(Icmpv6, rfc8106_5_servers_of_wrong_length_and_names_that_run_out) {
  EXPECT_FALSE(NdpRdnss::parse({kNdpRdnss, bytes("1902{14}")}));
  EXPECT_FALSE(NdpRdnss::parse({kNdpRdnss, bytes("1904{30}")}));
  Bytes name = bytes("1f020000000000000f61616161616161");
  char out[64];
  EXPECT_EQ(NdpDnssl::parse({kNdpDnssl, name})->first_name(out), 0u);
}

// --- DHCP ------------------------------------------------------------------------------

Bytes dhcp_message(const char* frame) {
  Bytes packet = behind_ethernet(frame);
  auto ip = Ipv4::parse(packet);
  EXPECT_TRUE(whole_valid(pseudo(*ip), ip->payload));
  return to_bytes(Udp::parse(ip->payload)->payload);
}

TEST(Dhcp, rfc2131_3_1_exchange) {
  Bytes offer = dhcp_message(frames::kDhcpOffer), ack = dhcp_message(frames::kDhcpAck), request = dhcp_message(frames::kDhcpRequest);
  auto message = Dhcp::parse(offer);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->type(), kDhcpOffer);
  EXPECT_EQ(message->header->transaction, 0xb2e85e24u);
  EXPECT_EQ(to_bytes(message->header->your_address), bytes("0a630019"));
  EXPECT_EQ(message->number(kDhcpLeaseTime), 864000u);
  EXPECT_EQ(message->number(kDhcpSubnetMask), 0xffffff00u);
  EXPECT_EQ(to_bytes({message->address(kDhcpRouter), 4}), bytes("0a630002"));
  EXPECT_EQ(to_bytes(message->find(kDhcpDnsServer)), bytes("0a63000208080808"));
  char name[32];
  EXPECT_EQ(message->copy(kDhcpDomainName, {reinterpret_cast<u8*>(name), sizeof(name)}), 11u);
  EXPECT_EQ(std::string_view(name, 11), "example.org");
  EXPECT_EQ(message->address(kDhcpRequestedAddress), nullptr);
  EXPECT_EQ(message->number(kDhcpMessageType), std::nullopt);  // too short for a number
  EXPECT_EQ(Dhcp::parse(ack)->type(), kDhcpAck);
  EXPECT_EQ(Dhcp::parse(request)->type(), kDhcpRequest);
}

TEST(Dhcp, rfc2131_4_1_builder_makes_the_same_discover) {
  Bytes discover = dhcp_message(frames::kDhcpDiscover), made(576);
  auto message = Dhcp::parse(discover);
  DhcpBuilder builder(made, kDhcpDiscover, message->header->transaction, message->header->client_mac);
  builder.add_u16(kDhcpMaximumSize, 576);
  builder.add(kDhcpParameterList, bytes("0103060c0f1c2a"));
  builder.add(kDhcpHostName, message->find(kDhcpHostName));
  builder.add(60, message->find(60));
  builder.add(kDhcpClientIdentifier, message->find(kDhcpClientIdentifier));
  EXPECT_EQ(builder.finish(), DhcpBuilder::kSizeMin);
  made.resize(discover.size());
  EXPECT_EQ(made, discover);
}

TEST(Dhcp, rfc2131_4_1_builder_without_room) {
  Bytes made(300);
  u8 mac[6] = {};
  for (size_t room : {0, 239, 240, 242, 299}) EXPECT_EQ(DhcpBuilder(std::span(made).first(room), kDhcpDiscover, 1, mac).finish(), 0u) << room;
  DhcpBuilder builder(made, kDhcpDiscover, 1, mac);
  builder.add(kDhcpHostName, Bytes(54));  // leaves one byte: for the end
  EXPECT_EQ(DhcpBuilder(builder).finish(), 300u);
  builder.add_u32(kDhcpLeaseTime, 1);
  EXPECT_EQ(builder.finish(), 0u);
}

TEST(Dhcp, rfc2131_4_1_overloaded_fields) {
  u8 mac[6] = {};
  Bytes made(300);
  DhcpBuilder builder(made, kDhcpAck, 1, mac);
  u8 overload = 3;
  builder.add(kDhcpOverload, {&overload, 1});
  memcpy(builder.header()->file, "\x33\x04\x00\x00\x00\x3c\x34\x01\x03\xff", 10);  // overload again, within a field: without effect
  memcpy(builder.header()->server_name, "\x03\x04\x0a\x00\x00\x01", 6);
  ASSERT_EQ(builder.finish(), 300u);
  auto message = Dhcp::parse(made);
  EXPECT_EQ(message->number(kDhcpLeaseTime), 60u);
  EXPECT_EQ(message->number(kDhcpRouter), 0x0a000001u);
  made[245] = 1;  // only `file`
  EXPECT_EQ(message->number(kDhcpLeaseTime), 60u);
  EXPECT_EQ(message->number(kDhcpRouter), std::nullopt);
}

TEST(Dhcp, rfc3396_5_parts_are_put_together) {
  u8 mac[6] = {}, out[16];
  Bytes made(300);
  DhcpBuilder builder(made, kDhcpAck, 1, mac);
  builder.add(kDhcpDomainName, bytes("6162"));
  builder.add(kDhcpDomainName, bytes("636465"));
  builder.finish();
  ASSERT_EQ(Dhcp::parse(made)->copy(kDhcpDomainName, out), 5u);
  EXPECT_EQ(memcmp(out, "abcde", 5), 0);
  EXPECT_EQ(Dhcp::parse(made)->copy(kDhcpDomainName, std::span(out).first(3)), 3u);
}

TEST(Dhcp, rfc3442_routes) {
  Bytes data = bytes(
      "000a630001"
      "180a00010a630002"
      "21");
  DhcpRouteReader reader(data);
  auto route = reader.next();
  ASSERT_TRUE(route);
  EXPECT_EQ(route->prefix_bits, 0);
  EXPECT_EQ(to_bytes(route->router), bytes("0a630001"));
  route = reader.next();
  EXPECT_EQ(to_bytes(route->network), bytes("0a000100"));
  EXPECT_FALSE(reader.next());
}

TEST(Dhcp, rfc2131_3_no_cookie_or_too_short_is_refused) {
  Bytes offer = dhcp_message(frames::kDhcpOffer);
  EXPECT_FALSE(Dhcp::parse(std::span(offer).first(239)));
  EXPECT_TRUE(Dhcp::parse(std::span(offer).first(240)));
  EXPECT_EQ(Dhcp::parse(std::span(offer).first(242))->type(), 0);
  offer[236] = 0;
  EXPECT_FALSE(Dhcp::parse(offer));
}

}  // namespace
}  // namespace husk::wire
