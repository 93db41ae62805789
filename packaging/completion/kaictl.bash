# bash completion for kaictl(1)

_kaictl_ids() {
  local daemon=()
  [[ -z $1 ]] || daemon=(--socket "$1")
  # The first line of the table is its heading; without kaid there is nothing to complete.
  kaictl "${daemon[@]}" list --timeout 1 2>/dev/null | while read -r id _; do [[ $id == ID ]] || printf '%s\n' "$id"; done
}

_kaictl() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local commands='register package unregister list status start stop restart terminate send logs events run
    upgrade rollback versions prune snapshot restore quarantine recover audit memory net policy reload doctor version'
  local global='--socket --output -o --help --version'
  local command='' socket='' at
  local -A options=(
    ['package build']='-o' ['package sign']='--secret-key' ['package verify']='--key'
    [register]='--timeout' [unregister]='--timeout' [list]='--timeout' [status]='--timeout'
    [start]='--timeout --no-wait' [stop]='--timeout --no-wait' [restart]='--timeout --no-wait'
    [terminate]='--purge --timeout' [send]='--timeout' [logs]='--follow -f --lines -n --since --timeout'
    [events]='--follow -f --lines -n --timeout' [quarantine]='--reason --type --severity --timeout'
    ['quarantine show']='--timeout' [recover]='--force --timeout' ['audit list']='--lines -n --timeout'
    ['audit export']='--file --timeout' ['audit verify']='--file --key --checkpoint --timeout'
    ['audit prove']='--checkpoint --timeout' ['audit checkpoint']='--timeout' ['audit rotate-key']='--timeout'
    ['memory stats']='--timeout' ['memory get']='--timeout' ['memory list']='--prefix --limit --cursor --timeout'
    ['memory export']='--timeout' ['memory import']='--timeout'
    [upgrade]='--type --force --no-backup --dry-run --timeout' [rollback]='--timeout' [versions]='--timeout'
    [prune]='--keep --timeout' [snapshot]='--file --overwrite --timeout' [restore]='--timeout'
    [net]='--timeout' [run]='--manifest --policy --env --mount --' ['policy check']='--timeout'
    ['policy explain']='--connect --timeout' [reload]='--timeout' [doctor]='' [version]='--timeout'
  )
  COMPREPLY=()

  for ((at = 1; at < COMP_CWORD; at++)); do
    case ${COMP_WORDS[at]} in
      --socket) socket=${COMP_WORDS[at + 1]}; ((at++)) ;;
      -o | --output) ((at++)) ;;
      --) [[ $command != run ]] || return 0 ;;
      -*) ;;
      *)
        if [[ -z $command ]]; then
          command=${COMP_WORDS[at]}
        elif [[ -n ${options["$command ${COMP_WORDS[at]}"]+there} ]]; then
          command+=" ${COMP_WORDS[at]}"
        fi
        ;;
    esac
  done

  case $previous in
    -o) [[ $command != 'package build' ]] || { mapfile -t COMPREPLY < <(compgen -f -W 'text json' -- "$current"); return; } ;;&
    -o | --output) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$current"); return ;;
    --socket | --manifest | --mount | --file | --key | --secret-key | --checkpoint) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --type)
      local types='crash resource_abuse security_violation manual'
      [[ $command != upgrade ]] || types='soft hard'
      mapfile -t COMPREPLY < <(compgen -W "$types" -- "$current")
      return
      ;;
    --severity) mapfile -t COMPREPLY < <(compgen -W 'low medium high critical' -- "$current"); return ;;
    --timeout | --connect | --since | --lines | -n | --prefix | --limit | --cursor | --keep | --policy | --env | --reason) return ;;
  esac
  if [[ -z $command ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands $global" -- "$current")
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${options[$command]} $global" -- "$current")
  elif [[ $command == policy ]]; then
    mapfile -t COMPREPLY < <(compgen -W 'check explain' -- "$current")
  elif [[ $command == audit ]]; then
    mapfile -t COMPREPLY < <(compgen -W 'list export verify prove checkpoint rotate-key' -- "$current")
  elif [[ $command == package ]]; then
    mapfile -t COMPREPLY < <(compgen -W 'build sign verify' -- "$current")
  elif [[ $command == package\ * ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $command == memory ]]; then
    mapfile -t COMPREPLY < <(compgen -W 'stats get list export import' -- "$current")
  elif [[ $command =~ ^memory\ (export|import)$ && $previous != "${command#* }" ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $command == quarantine ]]; then
    mapfile -t COMPREPLY < <(compgen -W "show $(_kaictl_ids "$socket")" -- "$current")
  elif [[ $command == policy* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current"; [[ $command != 'policy explain' ]] || compgen -W "$(_kaictl_ids "$socket")" -- "$current")
  elif [[ $command == upgrade && $previous != upgrade && $previous != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $command =~ ^(register|restore)$ ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $command =~ ^(unregister|status|net|upgrade|rollback|versions|prune|snapshot|start|stop|restart|terminate|send|logs|events|recover|quarantine\ show|audit\ (list|export|verify|prove)|memory\ (stats|get|list|export|import))$ ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_kaictl_ids "$socket")" -- "$current")
  fi
}

complete -F _kaictl kaictl
