// Formatting for inspect.h.
#include "image/inspect.h"

#include <map>

namespace husk::image {
namespace {

using nlohmann::json;

u64 parts_size(const abi::ImagePart* parts, u32 count) {
  u64 size = 0;
  for (u32 i = 0; i < count; ++i) size += parts[i].file_size;
  return size;
}

std::string size_text(u64 bytes) {
  char text[40];
  if (bytes < 10 * kKiB) {
    snprintf(text, sizeof(text), "%lu bytes", bytes);
  } else if (bytes < 10 * kMiB) {
    snprintf(text, sizeof(text), "%lu KiB", (bytes + kKiB / 2) / kKiB);
  } else {
    snprintf(text, sizeof(text), "%lu MiB", (bytes + kMiB / 2) / kMiB);
  }
  return text;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) {
    bool quote = word.empty() || word.find_first_of(" \t\n'\"\\$") != std::string::npos;
    text += (text.empty() ? "" : " ") + (quote ? json(word).dump(-1, ' ', false, json::error_handler_t::replace) : word);
  }
  return text;
}

std::string line(const char* name, const std::string& value) {
  char text[24];
  snprintf(text, sizeof(text), "%-14s", name);
  return text + value + "\n";
}

std::string files_text(const Manifest& manifest, Detail detail) {
  u64 rewritten = 0, left = 0;
  std::string text;
  for (const auto& file : manifest.files) {
    rewritten += file.sites.rewritten.size();
    left += file.sites.left.size();
    char head[48];
    snprintf(head, sizeof(head), "  %6zu %6zu  ", file.sites.rewritten.size(), file.sites.left.size());
    text += head + file.path + "\n";
    if (detail != Detail::sites) continue;
    for (const auto& site : file.sites.left) {
      snprintf(head, sizeof(head), "%26s0x%lx: ", "", site.address);
      text += head + site.reason + "\n";
    }
  }
  return line("system calls", std::to_string(rewritten) + " sites are calls, " + std::to_string(left) + " trap") +
         (manifest.files.empty() ? "" : "   calls  traps  file\n") + text;
}

}  // namespace

json inspect_json(const Image& image) {
  const auto& header = image.header();
  json result = to_json(image.manifest());
  result["sizes"] = {{"file", header.file_size},
                     {"nub", parts_size(header.nub_parts, header.nub_part_count)},
                     {"kernel", parts_size(header.kernel_parts, header.kernel_part_count)},
                     {"relocations", header.relocation_words * sizeof(u64)},
                     {"kernel_memory", header.kernel_size},
                     {"manifest", header.manifest_size},
                     {"rootfs", header.rootfs_size}};
  result["sha256"] = {{"nub", hex(header.nub_sha256)},
                      {"kernel", hex(header.kernel_sha256)},
                      {"manifest", hex(header.manifest_sha256)},
                      {"rootfs", hex(header.rootfs_sha256)}};
  return result;
}

std::string inspect_text(const Image& image, Detail detail) {
  const auto& header = image.header();
  Manifest manifest = image.manifest();
  std::string text = line("program", manifest.program) + line("arguments", joined(manifest.arguments));
  if (!manifest.environment.empty()) text += line("environment", joined(manifest.environment));
  text += line("directory", manifest.directory);
  if (manifest.memory != 0) text += line("memory", size_text(manifest.memory));
  text += line("JIT", manifest.jit ? "allowed: the program may make memory executable" : "no");
  text += line("image", size_text(header.file_size));
  text += line("  nub", size_text(parts_size(header.nub_parts, header.nub_part_count)));
  text += line("  kernel", size_text(parts_size(header.kernel_parts, header.kernel_part_count)));
  text += line("  files", size_text(header.rootfs_size) + " in " + std::to_string(manifest.file_count) + " files and directories");
  text += line("digest", hex(header.rootfs_sha256));
  for (const auto& warning : manifest.warnings) text += line("note", warning);
  return text + files_text(manifest, detail);
}

}  // namespace husk::image
