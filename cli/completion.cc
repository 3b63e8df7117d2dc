// `husk completion bash|zsh|fish`: a script for the shell, to be sourced. The words are those of main.cc; tests/e2e/cases_command.py compares.
#include <stdio.h>

#include <string>

#include "cli/failure.h"
#include "cli/options.h"

namespace husk::cli {
namespace {

constexpr const char* kBash = R"(# husk: bash completion; use: source <(husk completion bash)
_husk() {
  local word="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "run build inspect doctor completion version --help" -- "$word")); return
  fi
  case "$previous" in
    --hypervisor) COMPREPLY=($(compgen -W "auto kvm qemu" -- "$word")); return ;;
    --net|--network) COMPREPLY=($(compgen -W "user user,host-loopback=on none tap tap=" -- "$word")); return ;;
    --machine) COMPREPLY=($(compgen -W "microvm q35" -- "$word")); return ;;
    completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$word")); return ;;
    --env-file|--with|--pcap|-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
  esac
  case "$command:$word" in
    run:-*) COMPREPLY=($(compgen -W "--env --env-file --memory --cpus --workdir --name --hostname --publish --net --network --ip --mac-address --mtu --dns --dns-search --add-host --pcap --with --trace --timeline --json --jit --no-aslr --log-level --hypervisor --machine --stop-timeout --rm --interactive --tty --help" -- "$word")) ;;
    build:-*) COMPREPLY=($(compgen -W "--output --with --env --env-file --workdir --memory --jit --json --help" -- "$word")) ;;
    inspect:-*|doctor:-*|version:-*) COMPREPLY=($(compgen -W "--json --help" -- "$word")) ;;
    run:*|build:*) COMPREPLY=($(compgen -c -f -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}
complete -o filenames -F _husk husk
)";

constexpr const char* kZsh = R"(#compdef husk
# husk: zsh completion; use: source <(husk completion zsh)
autoload -U +X bashcompinit && bashcompinit
)";

constexpr const char* kFish = R"(# husk: fish completion; use: husk completion fish | source
complete -c husk -f
complete -c husk -n __fish_use_subcommand -a 'run' -d 'run a program or an image as a machine of its own'
complete -c husk -n __fish_use_subcommand -a 'build' -d 'make an image of a program'
complete -c husk -n __fish_use_subcommand -a 'inspect' -d 'say what is in an image'
complete -c husk -n __fish_use_subcommand -a 'doctor' -d 'check this host'
complete -c husk -n __fish_use_subcommand -a 'completion' -d 'print a completion script'
complete -c husk -n __fish_use_subcommand -a 'version' -d 'print the version'
complete -c husk -n '__fish_seen_subcommand_from run build inspect' -F
complete -c husk -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
complete -c husk -n '__fish_seen_subcommand_from run' -s e -l env -l env-file -s m -l memory -l cpus -s w -l workdir -l name -l hostname -l with
complete -c husk -n '__fish_seen_subcommand_from run' -l trace -l timeline -l json -l jit -l no-aslr -l log-level -l stop-timeout -l rm -s i -l interactive -s t -l tty
complete -c husk -n '__fish_seen_subcommand_from run' -s p -l publish -l ip -l mac-address -l mtu -l dns -l dns-search -l add-host -l pcap
complete -c husk -n '__fish_seen_subcommand_from run' -l net -l network -x -a 'user user,host-loopback=on none tap'
complete -c husk -n '__fish_seen_subcommand_from run' -l hypervisor -x -a 'auto kvm qemu'
complete -c husk -n '__fish_seen_subcommand_from run' -l machine -x -a 'microvm q35'
complete -c husk -n '__fish_seen_subcommand_from build' -s o -l output -l with -s e -l env -l env-file -s w -l workdir -s m -l memory -l jit -l json
complete -c husk -n '__fish_seen_subcommand_from inspect doctor version' -l json
)";

}  // namespace

int completion_command(const std::string& shell) {
  if (shell == "bash") fputs(kBash, stdout);
  else if (shell == "zsh") fputs((std::string(kZsh) + kBash).c_str(), stdout);
  else if (shell == "fish") fputs(kFish, stdout);
  else throw Failure("completion " + shell + ": no such shell; choose bash, zsh or fish");
  return 0;
}

}  // namespace husk::cli
