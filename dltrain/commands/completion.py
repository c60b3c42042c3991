"""`dltrain completion bash|zsh|fish`: print the script that completes words and keys with the tab key."""

from __future__ import annotations

from dltrain.errors import UserError, nearest

BASH = """_dltrain() {
    local line="${COMP_LINE:0:COMP_POINT}" word candidate
    # the words of a list, which keep their bracket; in any other place, brackets would stand for the names of files
    local list='^[A-Za-z0-9_.]+=[[][A-Za-z0-9_.,-]*$' special
    word="${line##*[[:space:]]}"
    # readline replaces what follows the last = or : of the word
    local kept="${word%"${word##*[=:]}"}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        [ -n "$candidate" ] || continue
        special='*[!A-Za-z0-9_./,:=@%+-]*'
        [[ "$candidate" =~ $list ]] && special='*[!][A-Za-z0-9_./,:=@%+-]*'
        candidate="${candidate#"$kept"}"
        # a name of a file may hold what the shell acts upon, such as $(…); words and keys need no quotes
        [[ "$candidate" == $special ]] && printf -v candidate %q "$candidate"
        COMPREPLY+=("$candidate")
    done < <(dltrain complete "$line" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/.,] ]] && compopt -o nospace
}
complete -o nosort -F _dltrain dltrain
"""
ZSH = """#compdef dltrain
_dltrain() {
    setopt localoptions extendedglob
    local -a found
    found=("${(@f)$(dltrain complete "${BUFFER[1,$CURSOR]}" 2>/dev/null)}")
    local -a words names
    # words and keys stand as they are; a name of a file may hold what the shell acts upon, such as $(…), and brackets of a list
    # would be looked up among the names of files
    words=(${(M)found:#[A-Za-z0-9_./,:=@%+-]##})
    names=(${found:|words})
    compadd -Q -S '' -- $words
    compadd -S '' -- ${names:#}
}
compdef _dltrain dltrain
"""
FISH = """complete -c dltrain -f -a '(dltrain complete (commandline -cp) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
HOW = {
    "bash": 'eval "$(dltrain completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(dltrain completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "dltrain completion fish | source  # in ~/.config/fish/config.fish",
}


def run(arguments: list[str]) -> int:
    """Print the script of a shell."""
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        given = arguments[0] if arguments else "nothing"
        raise UserError(
            f"`dltrain completion` needs the name of a shell, not {given}.{nearest(given, SCRIPTS)}\n"
            + "\n".join(f"  {line}" for line in HOW.values())
        )
    print(SCRIPTS[arguments[0]], end="")
    return 0
