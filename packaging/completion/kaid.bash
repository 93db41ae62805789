# bash completion for kaid(8)

_kaid() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  case $previous in
    --config) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    --state-dir | --runtime-dir) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W '--config --state-dir --runtime-dir --help --version' -- "$current") ;;
  esac
}

complete -F _kaid kaid
