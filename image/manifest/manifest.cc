// JSON form of the manifest. Addresses are strings in hexadecimal: JSON numbers lose bits beyond 2^53.
#include "image/manifest/manifest.h"

namespace husk::image {
namespace {

using nlohmann::json;

std::string hexadecimal(u64 value) {
  char text[24];
  snprintf(text, sizeof(text), "0x%lx", value);
  return text;
}

u64 address_of(const json& value) { return std::stoull(value.get<std::string>(), nullptr, 16); }

json to_json(const FileReport& file) {
  json left = json::array(), rewritten = json::array();
  for (const auto& site : file.sites.left) left.push_back({{"address", hexadecimal(site.address)}, {"reason", site.reason}});
  for (u64 site : file.sites.rewritten) rewritten.push_back(hexadecimal(site));
  return {{"path", file.path},
          {"rewritten", std::move(rewritten)},
          {"left", std::move(left)},
          {"trampolines", {{"address", hexadecimal(file.sites.trampolines_address)}, {"size", file.sites.trampolines_size}}}};
}

FileReport file_from_json(const json& value) {
  FileReport file;
  file.path = value.at("path").get<std::string>();
  for (const auto& site : value.at("rewritten")) file.sites.rewritten.push_back(address_of(site));
  for (const auto& site : value.at("left")) {
    file.sites.left.push_back({address_of(site.at("address")), site.at("reason").get<std::string>()});
  }
  file.sites.trampolines_address = address_of(value.at("trampolines").at("address"));
  file.sites.trampolines_size = value.at("trampolines").at("size").get<u64>();
  return file;
}

}  // namespace

json to_json(const Manifest& manifest) {
  json files = json::array();
  for (const auto& file : manifest.files) files.push_back(to_json(file));
  return {{"format", 1},
          {"program", manifest.program},
          {"arguments", manifest.arguments},
          {"environment", manifest.environment},
          {"directory", manifest.directory},
          {"memory", manifest.memory},
          {"jit", manifest.jit},
          {"file_count", manifest.file_count},
          {"warnings", manifest.warnings},
          {"files", std::move(files)}};
}

Manifest manifest_from_json(Bytes text, const std::string& name) {
  try {
    json value = json::parse(text.begin(), text.end());
    Manifest manifest;
    manifest.program = value.at("program").get<std::string>();
    manifest.arguments = value.at("arguments").get<std::vector<std::string>>();
    manifest.environment = value.at("environment").get<std::vector<std::string>>();
    manifest.directory = value.at("directory").get<std::string>();
    manifest.memory = value.at("memory").get<u64>();
    manifest.jit = value.at("jit").get<bool>();
    manifest.file_count = value.value("file_count", u64{0});
    manifest.warnings = value.value("warnings", std::vector<std::string>{});
    for (const auto& file : value.at("files")) manifest.files.push_back(file_from_json(file));
    return manifest;
  } catch (const std::exception& error) {
    throw Error(name + ": its manifest is damaged (" + error.what() + "); build the image again");
  }
}

}  // namespace husk::image
