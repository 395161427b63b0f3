package cli

import (
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/node"
)

const groupFleet = "FLEET"

// fleetFlags say which workers a node starts as its work needs them.
func fleetFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "fleet", Usage: "start workers as the work needs them: `KIND` process (of this machine), ec2 (instances), none", Value: &choice{node.FleetNone, []string{node.FleetNone, node.FleetProcess, node.FleetEC2}}, Category: groupFleet},
		&cli.IntFlag{Name: "max-workers", Usage: "at most `N` workers", DefaultText: "10; of processes one per CPU", Category: groupFleet},
		&cli.IntFlag{Name: "min-workers", Usage: "keep `N` workers though there is no work", Category: groupFleet},
		&cli.Float64Flag{Name: "drain-seconds", Usage: "have enough workers to do what waits in `S` seconds; more is cheaper and slower", DefaultText: "300; of processes 10", Category: groupFleet},
		&cli.IntFlag{Name: "max-launches-per-hour", Usage: "start at most `N` workers an hour", DefaultText: "three times --max-workers; of processes 3600", Category: groupFleet},
		&cli.Float64Flag{Name: "budget-per-day", Usage: "spend at most `DOLLARS` a UTC day, by list prices", DefaultText: "no limit", Category: groupFleet},
		&cli.BoolFlag{Name: "spot", Usage: "Spot instances first, and on demand where those have run out", Category: groupFleet, DisableDefaultText: true},
		&cli.StringFlag{Name: "ami", Usage: "`ID` of the image", DefaultText: "the newest Debian 12", Category: groupFleet},
		&cli.StringSliceFlag{Name: "subnets", Usage: "`ID` of a subnet, or ID=ZONE, in the order to use them; may be given more than once", DefaultText: "those of the default VPC", Category: groupFleet},
		&cli.StringSliceFlag{Name: "types", Usage: "instance `TYPE`, in the order to use them; may be given more than once", DefaultText: "c7a.large", Category: groupFleet},
		&cli.StringFlag{Name: "worker-sg", Usage: "`ID` of the security group of workers", DefaultText: "the one tagged with --cluster and the role worker", Category: groupFleet},
		&cli.StringSliceFlag{Name: "worker-node", Usage: "`URL` at which instances reach a node; give those of both, to both nodes", DefaultText: "where the nodes advertise their APIs", Category: groupFleet},
		&cli.StringSliceFlag{Name: "prices", Usage: "`TYPE=DOLLARS` an hour on demand; may be given more than once", DefaultText: "not known", Category: groupFleet},
		&cli.Float64Flag{Name: "fleet-hurry", Usage: "for tests: divide the times of --fleet ec2 by `N`", Hidden: true},
	}
}

func fleetConfig(c *cli.Context) node.Fleet {
	return node.Fleet{
		Kind:       c.Generic("fleet").(*choice).value,
		MaxWorkers: c.Int("max-workers"), MinWorkers: c.Int("min-workers"),
		Drain:           time.Duration(c.Float64("drain-seconds") * float64(time.Second)),
		LaunchesPerHour: c.Int("max-launches-per-hour"), BudgetPerDay: c.Float64("budget-per-day"),
		Prices: c.StringSlice("prices"), Spot: c.Bool("spot"), Image: c.String("ami"), Subnets: c.StringSlice("subnets"),
		Types: c.StringSlice("types"), SecurityGroup: c.String("worker-sg"), Nodes: c.StringSlice("worker-node"),
		Hurry: c.Float64("fleet-hurry"),
	}
}
