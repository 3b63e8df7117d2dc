// See cli/options.h.
#include "cli/options.h"

#include <stdlib.h>
#include <string.h>

#include <fstream>

#include "cli/failure.h"

namespace husk::cli {

u64 parse_size(const std::string& text, const std::string& option) {
  size_t digits = text.find_first_not_of("0123456789");
  std::string number = text.substr(0, digits);
  std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  u64 factor = 0, value = 0;
  if (unit.empty() || unit == "b" || unit == "B") factor = 1;
  else if (strchr("kK", unit[0]) != nullptr) factor = kKiB;
  else if (strchr("mM", unit[0]) != nullptr) factor = kMiB;
  else if (strchr("gG", unit[0]) != nullptr) factor = kGiB;
  std::string rest = unit.empty() ? "" : unit.substr(1);
  bool good = factor != 0 && (rest.empty() || rest == "b" || rest == "B" || rest == "iB") && !number.empty() && number.size() < 16;
  if (good) value = strtoull(number.c_str(), nullptr, 10);
  if (!good || !checked_mul(value, factor, &value)) {
    throw Failure(option + " " + text + ": not a size; write a whole number with K, M or G, such as 64M");
  }
  return value;
}

u64 parse_duration_ns(const std::string& text, const std::string& option) {
  char* end = nullptr;
  double value = strtod(text.c_str(), &end);
  std::string unit = end;
  double factor = unit.empty() || unit == "s" ? 1e9 : unit == "ms" ? 1e6 : unit == "m" ? 60e9 : 0;
  if (end == text.c_str() || factor == 0 || !(value >= 0) || value * factor > 1e18) {
    throw Failure(option + " " + text + ": not a duration; write seconds, or a number with ms, s or m");
  }
  return static_cast<u64>(value * factor);
}

void add_environment(std::vector<std::string>& out, const std::string& entry) {
  size_t equals = entry.find('=');
  if (entry.empty() || equals == 0) throw Failure("-e " + entry + ": has no name; write NAME=VALUE or NAME");
  std::string name = entry.substr(0, equals), value = entry;
  if (equals == std::string::npos) {
    const char* host = getenv(name.c_str());
    if (host == nullptr) return;
    value = name + "=" + host;
  }
  std::erase_if(out, [&](const std::string& other) { return other.compare(0, name.size() + 1, name + "=") == 0; });
  out.push_back(value);
}

void add_environment_file(std::vector<std::string>& out, const std::string& path) {
  std::ifstream file(path);
  if (!file || (file.peek(), file.bad())) throw Failure("--env-file " + path + ": " + strerror(errno) + "; check the path");
  for (std::string line; std::getline(file, line);) {
    size_t start = line.find_first_not_of(" \t");
    if (start != std::string::npos && line[start] != '#') add_environment(out, line.substr(start));
  }
}

}  // namespace husk::cli
