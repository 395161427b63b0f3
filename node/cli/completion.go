package cli

import (
	"embed"
	"fmt"

	"github.com/urfave/cli/v2"
)

//go:embed completion
var completionScripts embed.FS

func (p *program) completionCommand() *cli.Command {
	c := &cli.Command{
		Name:  "completion",
		Usage: "print the completion script of a shell",
		Description: "bash:        source <(workmanager completion bash)\n" +
			"zsh:         workmanager completion zsh > \"${fpath[1]}/_workmanager\"\n" +
			"fish:        workmanager completion fish | source\n" +
			"powershell:  workmanager completion powershell | Out-String | Invoke-Expression",
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		c.Subcommands = append(c.Subcommands, &cli.Command{
			Name: shell, Usage: "print the script for " + shell,
			Flags: []cli.Flag{reportFlag()},
			Action: func(c *cli.Context) error {
				if err := noArgs(c); err != nil {
					return err
				}
				return p.completion(c, shell)
			},
		})
	}
	return c
}

func (p *program) completion(c *cli.Context, shell string) error {
	text, err := completionScript(c.App, shell)
	if err != nil {
		return err
	}
	if f := format(c); f != formatTable {
		return p.printJSON(f, map[string]string{"shell": shell, "script": text})
	}
	_, err = fmt.Fprint(p.stdout, text)
	return err
}

// fishIDs offers the IDs of jobs, which the library knows nothing of.
const fishIDs = `complete -c workmanager -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from get wait cancel receipt explain' -f -a '(workmanager job get --generate-bash-completion 2>/dev/null)'
`

func completionScript(app *cli.App, shell string) (string, error) {
	if shell == "fish" {
		text, err := app.ToFishCompletion()
		if err != nil {
			return "", fmt.Errorf("make the script for fish: %w", err)
		}
		return text + "\n" + fishIDs, nil
	}
	text, err := completionScripts.ReadFile("completion/workmanager." + shell)
	return string(text), err
}
