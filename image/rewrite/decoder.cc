// See decoder.h.
#include "image/rewrite/decoder.h"

#include <dlfcn.h>

#include <string>
#include <type_traits>

namespace husk::image {
namespace {

struct Library {
  ZydisDecoder decoder;
  decltype(&ZydisDecoderInit) init;
  decltype(&ZydisDecoderDecodeInstruction) instruction;
  decltype(&ZydisDecoderDecodeFull) full;
  decltype(&ZydisRegisterGetLargestEnclosing) largest_enclosing;
};

Library load() {
  const std::string name =
      "libZydis.so." + std::to_string(ZYDIS_VERSION_MAJOR(ZYDIS_VERSION)) + "." + std::to_string(ZYDIS_VERSION_MINOR(ZYDIS_VERSION));
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Error(std::string(dlerror()) + "; it decodes instructions when an image is built: apt-get install libzydis-dev");
  Library library{};
  auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
    if (function == nullptr) throw Error(name + " has no " + symbol + "; install the version that husk was built with");
  };
  find(library.init, "ZydisDecoderInit");
  find(library.instruction, "ZydisDecoderDecodeInstruction");
  find(library.full, "ZydisDecoderDecodeFull");
  find(library.largest_enclosing, "ZydisRegisterGetLargestEnclosing");
  library.init(&library.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  return library;
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace

std::optional<ZydisDecodedInstruction> decode_instruction(Bytes code) {
  ZydisDecodedInstruction decoded;
  if (ZYAN_FAILED(library().instruction(&library().decoder, nullptr, code.data(), code.size(), &decoded))) return std::nullopt;
  return decoded;
}

std::optional<DecodedOperands> decode_operands(Bytes code) {
  DecodedOperands decoded;
  if (ZYAN_FAILED(library().full(&library().decoder, code.data(), code.size(), &decoded.instruction, decoded.operands))) return std::nullopt;
  return decoded;
}

bool is_part_of_rsp(ZydisRegister reg) { return library().largest_enclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) == ZYDIS_REGISTER_RSP; }

}  // namespace husk::image
