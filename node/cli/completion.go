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
	if shell == "fish" {
		text, err := c.App.ToFishCompletion()
		if err != nil {
			return fmt.Errorf("make the script for fish: %w", err)
		}
		_, err = fmt.Fprintln(p.stdout, text)
		return err
	}
	text, err := completionScripts.ReadFile("completion/workmanager." + shell)
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(text)
	return err
}
